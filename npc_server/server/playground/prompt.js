/** The effective prompt of a reply, in a dialog. */

import { el } from "./dom.js";
import { rerunForm } from "./rerun.js";
import { languageOf } from "./text.js";

/** @typedef {import("./i18n.js").I18n} I18n */

/** @type {Record<string, string>} */
const ROLES = { system: "roleSystem", user: "roleUser", assistant: "roleAssistant" };

/** Where a section comes from, by the first word of its source; each has a colour of its own. */
const KINDS = ["rules", "persona", "scene", "cast", "example", "history", "tail", "cue"];

/** @type {Record<number, string>} */
const REFUSALS = { 401: "promptKey", 403: "promptHidden", 404: "promptGone" };

/**
 * @param {object} options
 * @param {HTMLDialogElement} options.dialog
 * @param {HTMLElement} options.body
 * @param {I18n} options.i18n
 * @param {() => string | null} options.key The API key, where one is in use.
 * @param {(turn: string, messages: import("./rerun.js").Message[]) => Promise<any>} options.onRun
 */
export function createPromptView({ dialog, body, i18n, key, onRun }) {
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
     * @param {{key: string, text: string}} reply
     */
    async open({ key: turn, text: original }) {
      body.replaceChildren(note("promptLoading"));
      dialog.showModal();
      dialog.dataset.turn = turn;
      const answer = await fetchPrompt(turn).catch(() => ({ refusal: "promptFailed", prompt: null }));
      if (dialog.dataset.turn !== turn) return;
      const parts = answer.prompt ? promptParts(answer.prompt, i18n) : [note(answer.refusal ?? "")];
      body.replaceChildren(...parts);
      if (!answer.prompt) return;
      const { messages } = answer.prompt;
      const run = (/** @type {any[]} */ edited) => onRun(turn, edited);
      body.append(rerunForm({ messages, original, i18n, onRun: run }));
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
  const shares = sharesOf(prompt.sections);
  const parts = [shareBar(shares, i18n), title("messages"), messages, title("sections"), sections];
  const dropped = Object.entries(prompt.dropped ?? {}).filter(([, what]) => !isNothing(what));
  if (dropped.length) {
    const list = dropped.map(([name, what]) => el("li", { text: `${name}: ${plain(what)}` }));
    parts.push(title("dropped"), el("ul", { class: "dropped" }, ...list));
  }
  return parts;
}

/**
 * The kind of a section: the first word of its source.
 * @param {string} source
 */
function kindOf(source) {
  const [first] = source.split(".");
  return KINDS.includes(first) ? first : "other";
}

/**
 * How many tokens each kind of section takes, in the order in which they come.
 * @param {{source: string, tokens: number}[]} sections
 * @returns {[string, number][]}
 */
export function sharesOf(sections) {
  /** @type {Map<string, number>} */
  const shares = new Map();
  for (const { source, tokens } of sections) {
    const kind = kindOf(source);
    shares.set(kind, (shares.get(kind) ?? 0) + tokens);
  }
  return [...shares];
}

/**
 * The whole prompt as one bar, with its legend.
 * @param {[string, number][]} shares
 * @param {I18n} i18n
 */
function shareBar(shares, i18n) {
  const total = shares.reduce((sum, [, tokens]) => sum + tokens, 0);
  const pieces = shares.map(([kind, tokens]) => {
    const piece = el("span", { "data-kind": kind });
    piece.style.flexGrow = String(tokens);
    return piece;
  });
  const legend = shares.map(([kind, tokens]) => {
    const name = i18n.put(el("span"), `kind_${kind}`);
    return el("li", { "data-kind": kind }, name, el("span", { class: "tokens", text: String(tokens) }));
  });
  return el(
    "div",
    { class: "shares" },
    i18n.put(el("p", { class: "note" }), "promptTokens", { count: total }),
    el("div", { class: "share-bar", "aria-hidden": "true" }, ...pieces),
    el("ul", { class: "legend" }, ...legend),
  );
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
    return el("li", { "data-kind": kindOf(part.source) }, el("details", {}, summary, text));
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
