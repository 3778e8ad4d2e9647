/** The effective prompt of a reply, in a dialog. */

import { el } from "./dom.js";
import { languageOf } from "./text.js";

/** @typedef {import("./i18n.js").I18n} I18n */

/** @type {Record<string, string>} */
const ROLES = { system: "roleSystem", user: "roleUser", assistant: "roleAssistant" };

/** @type {Record<number, string>} */
const REFUSALS = { 401: "promptKey", 403: "promptHidden", 404: "promptGone" };

/**
 * @param {object} options
 * @param {HTMLDialogElement} options.dialog
 * @param {HTMLElement} options.body
 * @param {I18n} options.i18n
 * @param {() => string | null} options.key The API key, where one is in use.
 */
export function createPromptView({ dialog, body, i18n, key }) {
  /** @param {string} turn */
  async function fetchPrompt(turn) {
    const secret = key();
    const headers = secret ? { Authorization: `Bearer ${secret}` } : undefined;
    const response = await fetch(`/prompts/${encodeURIComponent(turn)}`, { headers });
    if (!response.ok) return { refusal: REFUSALS[response.status] ?? "promptFailed" };
    return { prompt: await response.json() };
  }

  /** @param {string} text */
  const note = (text) => i18n.put(el("p", { class: "note" }), text);

  return {
    /**
     * Show the prompt of a reply.
     * @param {string} turn
     */
    async open(turn) {
      body.replaceChildren(note("promptLoading"));
      dialog.showModal();
      dialog.dataset.turn = turn;
      const answer = await fetchPrompt(turn).catch(() => ({ refusal: "promptFailed", prompt: null }));
      if (dialog.dataset.turn !== turn) return;
      const parts = answer.prompt ? promptParts(answer.prompt, i18n) : [note(answer.refusal ?? "")];
      body.replaceChildren(...parts);
    },
  };
}

/**
 * @param {any} prompt
 * @param {I18n} i18n
 */
function promptParts(prompt, i18n) {
  const title = (/** @type {string} */ key) => i18n.put(el("h3"), key);
  const messages = el("ol", { class: "messages" }, ...prompt.messages.map(message(i18n)));
  const most = Math.max(1, ...prompt.sections.map((/** @type {any} */ s) => s.tokens));
  const sections = el("ul", { class: "sections" }, ...prompt.sections.map(section(i18n, most)));
  const parts = [title("messages"), messages, title("sections"), sections];
  const dropped = Object.entries(prompt.dropped ?? {}).filter(([, what]) => !isNothing(what));
  if (dropped.length) {
    const list = dropped.map(([name, what]) => el("li", { text: `${name}: ${plain(what)}` }));
    parts.push(title("dropped"), el("ul", { class: "dropped" }, ...list));
  }
  return parts;
}

/** @param {I18n} i18n */
const message = (i18n) => (/** @type {{role: string, text: string}} */ { role, text }) => {
  const name = el("span", { class: `role ${role}`, text: role });
  if (ROLES[role]) i18n.put(name, ROLES[role]);
  return el("li", {}, name, el("pre", { text, lang: languageOf(text) }));
};

/**
 * @param {I18n} i18n
 * @param {number} most
 */
const section =
  (i18n, most) => (/** @type {{source: string, text: string, tokens: number}} */ part) => {
    const amount = el("span", { class: "amount" }, el("span"));
    /** @type {HTMLElement} */ (amount.firstElementChild).style.width = `${(100 * part.tokens) / most}%`;
    const tokens = i18n.put(el("span", { class: "tokens" }), "tokensOf", { count: part.tokens });
    const summary = el("summary", {}, el("code", { text: part.source }), amount, tokens);
    const text = el("pre", { text: part.text, lang: languageOf(part.text) });
    return el("li", {}, el("details", {}, summary, text));
  };

/** @param {unknown} what */
function isNothing(what) {
  return !what || (Array.isArray(what) && what.length === 0);
}

/**
 * @param {unknown} what
 * @returns {string}
 */
function plain(what) {
  if (Array.isArray(what)) return what.map(plain).join(", ");
  return typeof what === "object" ? JSON.stringify(what) : String(what);
}
