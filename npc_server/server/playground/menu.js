/** What can be done about a line, in a small menu. The style sheet shows it to those who direct. */

import { el } from "./dom.js";

/** @typedef {import("./conversation.js").Turn} Turn */

/**
 * @param {Turn} turn
 * @param {import("./i18n.js").I18n} i18n
 * @param {object} on
 * @param {(turn: Turn) => void} on.onRewind
 * @param {(turn: Turn) => void} on.onRedact
 * @returns {HTMLElement}
 */
export function turnMenu(turn, i18n, { onRewind, onRedact }) {
  const mark = el("summary", {}, el("span", { "aria-hidden": "true", text: "⋯" }));
  i18n.put(mark, "lineMenu", undefined, "tLabel");
  const menu = el("details", { class: "menu" }, mark);
  const choice = (/** @type {string} */ key, /** @type {(turn: Turn) => void} */ act) =>
    i18n.put(
      el("button", {
        type: "button",
        class: `quiet ${key}`,
        on: {
          click() {
            menu.removeAttribute("open");
            act(turn);
          },
        },
      }),
      key,
    );
  menu.append(el("div", { class: "choices" }, choice("rewindHere", onRewind), choice("redact", onRedact)));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.hasAttribute("open")) return;
    event.stopPropagation();
    menu.removeAttribute("open");
    mark.focus();
  });
  return menu;
}
