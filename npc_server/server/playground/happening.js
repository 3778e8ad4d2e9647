/** The form with which something happens in the world. */

import { labelled, memberChecks } from "./checks.js";
import { el } from "./dom.js";
import { npcsIn } from "./members.js";

const RESPONSES = { auto: "respondAuto", must: "respondMust", never: "respondNever" };

/**
 * @param {object} options
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {import("./panel.js").Run} options.run
 */
export function createHappening({ i18n, run }) {
  const text = /** @type {HTMLTextAreaElement} */ (el("textarea", { rows: 2, required: true }));
  i18n.put(text, "happenHint", undefined, "tPlaceholder");
  const to = memberChecks("concerns", i18n);
  const hearers = memberChecks("perceivedBy", i18n);
  const options = Object.entries(RESPONSES).map(([value, key]) =>
    i18n.put(el("option", { value }), key),
  );
  const respond = /** @type {HTMLSelectElement} */ (el("select", {}, ...options));
  const instructions = /** @type {HTMLInputElement} */ (el("input", { type: "text", maxlength: 500 }));
  const send = i18n.put(el("button", { type: "submit", class: "primary" }), "happenSend");

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    const done = await run("event", {
      text: text.value.trim(),
      to: to.chosen(),
      hearers: hearers.chosen(),
      respond: respond.value,
      instructions: instructions.value.trim() || undefined,
    });
    if (done) text.value = "";
  }

  const node = el(
    "form",
    { class: "stacked", on: { submit } },
    labelled("happenText", text, i18n),
    to.node,
    hearers.node,
    labelled("respond", respond, i18n),
    labelled("instructions", instructions, i18n),
    send,
  );

  return {
    node,

    /** @param {import("./conversation.js").Conversation} state */
    show(state) {
      to.show(npcsIn(state));
      hearers.show([...state.cast.values()].filter(({ away }) => !away));
    },
  };
}
