/** What an NPC does in the game, as chips above its words; the page can play the game. */

import { el } from "./dom.js";

/** @typedef {import("./conversation.js").Deed} Deed */
/** @typedef {import("./i18n.js").I18n} I18n */
/** @typedef {(deed: Deed, ok: boolean, reason?: string) => void} OnResult */

/**
 * How far an action has come.
 * @param {Deed} deed
 * @returns {"proposed" | "done" | "refused"}
 */
export function stateOf(deed) {
  if (deed.ok === false) return "refused";
  return deed.ok || !deed.confirm ? "done" : "proposed";
}

/**
 * Arguments for people: "item: knife, count: 1".
 * @param {Record<string, any>} args
 */
export function argumentsText(args) {
  return Object.entries(args)
    .map(([name, value]) => `${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)
    .join(", ");
}

/**
 * @param {Deed} deed
 * @param {I18n} i18n
 * @param {OnResult} onResult
 * @returns {HTMLElement}
 */
export function deedChip(deed, i18n, onResult) {
  const state = stateOf(deed);
  const name = el("code", { class: "deed-name", text: deed.name });
  const args = el("span", { class: "deed-args", text: argumentsText(deed.args), dir: "auto" });
  const key = deed.sent && state === "proposed" ? "sending" : state;
  const label = i18n.put(el("span", { class: "deed-state" }), key);
  const chip = el("li", { class: "deed", "data-state": state }, name, args, label);
  if (deed.reason) chip.append(el("span", { class: "deed-reason", text: deed.reason, dir: "auto" }));
  if (deed.execute && state === "proposed" && !deed.sent) chip.append(answerForm(deed, i18n, onResult));
  return chip;
}

/**
 * @param {Deed} deed
 * @param {I18n} i18n
 * @param {OnResult} onResult
 */
function answerForm(deed, i18n, onResult) {
  const reason = el("input", { type: "text", name: "reason", maxlength: 200, autocomplete: "off" });
  i18n.put(i18n.put(reason, "refuseReason", undefined, "tPlaceholder"), "refuseReason", undefined, "tLabel");
  const accept = el("button", { type: "button", class: "accept", on: { click: () => onResult(deed, true) } });
  const refuse = el("button", { type: "submit", class: "refuse" });
  const given = /** @type {HTMLInputElement} */ (reason);
  return el(
    "form",
    {
      class: "deed-answer",
      on: {
        submit(/** @type {Event} */ event) {
          event.preventDefault();
          onResult(deed, false, given.value.trim() || undefined);
        },
      },
    },
    i18n.put(accept, "accept"),
    reason,
    i18n.put(refuse, "refuse"),
  );
}
