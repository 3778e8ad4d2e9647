/** Trying a prompt out: its messages to be edited, and what the model says to them then. */

import { el } from "./dom.js";
import { languageOf } from "./text.js";

/** @typedef {{role: string, text: string}} Message */

/** @type {Record<string, string>} */
const ROLES = { system: "roleSystem", user: "roleUser", assistant: "roleAssistant" };

/**
 * @param {object} options
 * @param {Message[]} options.messages The prompt as it was.
 * @param {string} options.original What was said to it.
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(messages: Message[]) => Promise<any>} options.onRun Gives `prompt.answer`, or is rejected
 *   with a refusal.
 * @returns {HTMLElement}
 */
export function rerunForm({ messages, original, i18n, onRun }) {
  const fields = messages.map((message) => editor(message, i18n));
  const run = i18n.put(el("button", { type: "submit", class: "primary" }), "rerunSend");
  const note = el("p", { class: "problem", role: "alert" });
  const answer = column("rerunAnswer", "", i18n);
  const both = el("div", { class: "answers", hidden: true }, column("rerunOriginal", original, i18n), answer);

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    /** @type {HTMLButtonElement} */ (run).disabled = true;
    i18n.put(run, "rerunRuns");
    note.textContent = "";
    const edited = messages.map(({ role }, index) => ({ role, text: fields[index].value }));
    try {
      show(await onRun(edited));
    } catch (refusal) {
      const { code, message } = /** @type {import("./director.js").Refusal} */ (refusal);
      note.textContent = refused(code, message);
    }
    /** @type {HTMLButtonElement} */ (run).disabled = false;
    i18n.put(run, "rerunSend");
  }

  /**
   * @param {string} code
   * @param {string} message
   */
  function refused(code, message) {
    if (code === "unknown_type") return i18n.t("rerunUnknown");
    return code === "no_host" ? i18n.t("needsHost") : message || i18n.t("notDone");
  }

  /** @param {{text: string, usage: object}} told */
  function show({ text, usage }) {
    both.hidden = false;
    const words = /** @type {HTMLElement} */ (answer.querySelector("pre"));
    words.textContent = text;
    words.lang = languageOf(text) ?? "";
    answer.querySelector(".tokens")?.remove();
    if (usage) answer.append(i18n.put(el("p", { class: "tokens note" }), "tokens", { ...usage }));
  }

  const editors = fields.map((field, index) => {
    const role = el("span", { class: `role ${messages[index].role}`, text: messages[index].role });
    if (ROLES[messages[index].role]) i18n.put(role, ROLES[messages[index].role]);
    return el("label", { class: "editor" }, role, field);
  });
  const form = el("form", { class: "rerun", on: { submit } }, ...editors, run, note, both);
  const summary = i18n.put(el("summary", {}), "rerun");
  return el("details", { class: "try" }, summary, form);
}

/**
 * @param {Message} message
 * @param {import("./i18n.js").I18n} i18n
 * @returns {HTMLTextAreaElement}
 */
function editor({ text }, i18n) {
  const rows = Math.min(12, Math.max(2, Math.ceil(text.length / 70)));
  const field = /** @type {HTMLTextAreaElement} */ (
    el("textarea", { rows, lang: languageOf(text), spellcheck: "false" })
  );
  field.value = text;
  return i18n.put(field, "rerunField", undefined, "tLabel");
}

/**
 * @param {string} title
 * @param {string} text
 * @param {import("./i18n.js").I18n} i18n
 */
function column(title, text, i18n) {
  return el("div", {}, i18n.put(el("h4"), title), el("pre", { text, lang: languageOf(text), dir: "auto" }));
}
