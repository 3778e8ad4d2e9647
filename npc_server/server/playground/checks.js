/** Small parts of forms that several panels use. */

import { el } from "./dom.js";
import { languageOf } from "./text.js";

/**
 * A choice of members: a box to tick for each.
 * @param {string} title The legend's text.
 * @param {import("./i18n.js").I18n} i18n
 */
export function memberChecks(title, i18n) {
  const boxes = el("div", { class: "checks" });
  const node = el("fieldset", {}, i18n.put(el("legend"), title), boxes);
  let shown = "";

  const inputs = () => /** @type {HTMLInputElement[]} */ ([...boxes.querySelectorAll("input")]);
  const chosen = () => inputs().flatMap((input) => (input.checked ? input.value : []));

  return {
    node,

    /** @param {import("./members.js").Member[]} members */
    show(members) {
      const now = JSON.stringify(members.map(({ member, name }) => [member, name]));
      if (now === shown) return;
      shown = now;
      const before = new Set(chosen());
      const box = (/** @type {import("./members.js").Member} */ { member, name }) =>
        el(
          "label",
          { class: "check" },
          el("input", { type: "checkbox", value: member, checked: before.has(member) }),
          el("span", { text: name, lang: languageOf(name) }),
        );
      boxes.replaceChildren(...members.map(box));
    },

    chosen,

    clear() {
      for (const input of inputs()) input.checked = false;
    },
  };
}

/**
 * A field with its label.
 * @param {string} title The label's text.
 * @param {HTMLElement} control
 * @param {import("./i18n.js").I18n} i18n
 */
export function labelled(title, control, i18n) {
  return el("label", { class: "labelled" }, i18n.put(el("span"), title), control);
}

/**
 * A button with a text.
 * @param {string} title
 * @param {import("./i18n.js").I18n} i18n
 * @param {() => void} onClick
 * @param {string} [kind] Its class.
 */
export function textButton(title, i18n, onClick, kind = "quiet") {
  return i18n.put(el("button", { type: "button", class: kind, on: { click: onClick } }), title);
}
