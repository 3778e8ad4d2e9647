/** The facts of the game. The server tells none back, so those are listed that were set here. */

import { textButton } from "./checks.js";
import { el } from "./dom.js";
import { forTab } from "./storage.js";

/** @typedef {string | number | boolean} Value */

/**
 * A value as it was written: `true`, `false` and numbers are what they look like.
 * @param {string} text
 * @returns {Value}
 */
export function valueOf(text) {
  const plain = text.trim();
  if (plain === "true" || plain === "false") return plain === "true";
  const number = Number(plain);
  return plain && Number.isFinite(number) ? number : plain;
}

/**
 * @param {object} options
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {import("./panel.js").Run} options.run
 */
export function createFacts({ i18n, run }) {
  let conversation = "";
  /** @type {Record<string, Value>} */
  let facts = {};
  const rows = el("tbody");
  const name = /** @type {HTMLInputElement} */ (field("factName"));
  const value = /** @type {HTMLInputElement} */ (field("factValue"));

  /** @param {string} label */
  function field(label) {
    const input = el("input", { type: "text", maxlength: 500, autocomplete: "off" });
    return i18n.put(i18n.put(input, label, undefined, "tPlaceholder"), label, undefined, "tLabel");
  }

  /** @param {Record<string, Value | null>} changes */
  async function change(changes) {
    if (!(await run("context.set", { facts: changes }))) return false;
    const known = Object.entries({ ...facts, ...changes }).filter(([, held]) => held !== null);
    facts = /** @type {Record<string, Value>} */ (Object.fromEntries(known));
    forTab.set(`facts.${conversation}`, JSON.stringify(facts));
    draw();
    return true;
  }

  function draw() {
    rows.replaceChildren(...Object.entries(facts).map(([fact, held]) => row(fact, held)));
  }

  /**
   * @param {string} fact
   * @param {Value} held
   */
  function row(fact, held) {
    const input = /** @type {HTMLInputElement} */ (
      el("input", { type: "text", value: String(held), "aria-label": fact, autocomplete: "off" })
    );
    input.addEventListener("change", () => change({ [fact]: valueOf(input.value) }));
    const remove = textButton("remove", i18n, () => change({ [fact]: null }));
    return el(
      "tr",
      { "data-fact": fact },
      el("th", { scope: "row", text: fact }),
      el("td", {}, input),
      el("td", {}, remove),
    );
  }

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    const fact = name.value.trim();
    if (!fact || !(await change({ [fact]: valueOf(value.value) }))) return;
    name.value = value.value = "";
    name.focus();
  }

  const add = i18n.put(el("button", { type: "submit" }), "add");
  const form = el("form", { class: "fact-form", on: { submit } }, name, value, add);
  const hint = i18n.put(el("p", { class: "note" }), "factsHint");

  return {
    node: el("div", { class: "stacked" }, hint, el("table", { class: "facts" }, rows), form),

    /** @param {import("./conversation.js").Conversation} state */
    show(state) {
      if (state.id === conversation) return;
      conversation = state.id;
      facts = JSON.parse(forTab.get(`facts.${conversation}`) ?? "{}");
      draw();
    },
  };
}
