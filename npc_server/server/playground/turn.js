/** One turn on the screen. */

import { deedChip } from "./deeds.js";
import { el } from "./dom.js";
import { turnMenu } from "./menu.js";
import { languageOf, split } from "./text.js";
import { timingsBar } from "./timings.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./i18n.js").I18n} I18n */

const WORDLESS = new Set(["silent", "cast"]);
/** @type {Record<string, string>} */
const SILENCES = { out_of_earshot: "silentFar", budget: "silentBudget", gone: "silentGone" };
const CUT_SHORT = new Set(["length", "deadline", "cancelled", "error", "interrupted"]);

/**
 * What of a turn was heard, what was not, and whether that is known yet.
 * @param {Turn} turn
 * @returns {[string, string]}
 */
export function heardAndNot(turn) {
  const heard = turn.heard ?? turn.shown;
  return heard === null ? [turn.text, ""] : split(turn.text, heard);
}

/**
 * @param {object} options
 * @param {I18n} options.i18n
 * @param {(turn: Turn) => void} options.onPrompt
 * @param {(turn: Turn) => void} options.onAgain
 * @param {(turn: Turn) => void} options.onAnew
 * @param {import("./talk.js").OnAct} options.onAct
 * @param {(turn: Turn) => void} options.onRewind
 * @param {(turn: Turn) => void} options.onRedact
 */
export function createTurnView({ i18n, onPrompt, onAgain, onAnew, onAct, onRewind, onRedact }) {
  /**
   * @param {Turn} turn
   * @param {{name: string, mine: boolean, plays: boolean, to: () => string}} about `to` names those
   *   to whom it is said, or nobody where that goes without saying.
   * @returns {{node: HTMLElement, paint: (plays: boolean) => void}}
   */
  return function turnView(turn, { name, mine, plays, to }) {
    const said = el("span", { class: "heard" });
    const rest = el("span", { class: "rest" });
    const deeds = el("ul", { class: "deeds", hidden: true });
    const words = el("p", { class: "words", dir: "auto" }, said, rest);
    const foot = el("div", { class: "foot" });
    const speaker = el("h3", { class: "speaker", text: name });
    if (mine) i18n.put(speaker, "you");
    if (turn.kind === "event") i18n.put(speaker, "event");
    const addressed = el("span", { class: "addressed", hidden: true });
    const head = el("div", { class: "says" }, speaker, addressed);
    const side = mine ? "mine" : "theirs";
    const node = el("li", { class: `turn ${side} ${turn.kind}` }, head, deeds, words, foot);
    let painted = "";
    let paintedDeeds = "";

    /** @param {boolean} stillPlays */
    function paint(stillPlays) {
      const [heard, unheard] = heardAndNot(turn);
      node.dataset.turn = turn.key;
      node.dataset.status = turn.status;
      if (said.textContent !== heard) said.textContent = heard;
      const lang = languageOf(turn.text);
      if (lang) words.lang = lang;
      else words.removeAttribute("lang");
      rest.replaceChildren(...(unheard && !stillPlays ? unheardText(unheard) : []));
      const speaking = turn.kind === "reply" && (turn.status !== "done" || stillPlays);
      node.classList.toggle("speaking", speaking);
      node.classList.toggle("replaced", Boolean(turn.replaced));
      node.classList.toggle("whisper", turn.whisper);
      words.hidden = WORDLESS.has(turn.kind) || Boolean(turn.redacted);
      paintAddressed();
      paintDeeds();
      paintFoot(heard, speaking);
    }

    function paintAddressed() {
      const names = to();
      addressed.hidden = !names && !turn.whisper;
      if (addressed.hidden) return;
      i18n.put(addressed, turn.whisper ? "whispersTo" : "saysTo", { names });
    }

    function paintDeeds() {
      const now = JSON.stringify(turn.deeds ?? []);
      if (now === paintedDeeds) return;
      paintedDeeds = now;
      const chips = (turn.deeds ?? []).map((deed) =>
        deedChip(deed, i18n, (...result) => onAct(turn, ...result)),
      );
      deeds.replaceChildren(...chips);
      deeds.hidden = chips.length === 0;
    }

    /** @param {string} unheard */
    function unheardText(unheard) {
      const label = i18n.put(el("span", { class: "hidden" }), "unheard");
      return [label, el("del", { class: "unheard", text: unheard })];
    }

    /**
     * @param {string} heard
     * @param {boolean} speaking
     */
    function paintFoot(heard, speaking) {
      const { status, finish, error, timings, key, replaced, redacted } = turn;
      const known = [status, finish, error, timings, key, replaced, redacted, speaking, !heard];
      const now = JSON.stringify(known);
      if (now === painted) return;
      painted = now;
      foot.replaceChildren(...footParts(heard, speaking));
    }

    /**
     * @param {string} heard
     * @param {boolean} speaking
     * @returns {HTMLElement[]}
     */
    function footParts(heard, speaking) {
      const parts = [];
      const note = (/** @type {string} */ key, /** @type {any} */ values = {}) =>
        parts.push(i18n.put(el("span", { class: "note" }), key, values));
      if (turn.kind === "silent") note(SILENCES[turn.text] ?? "silent", { name });
      if (turn.kind === "cast") note(turn.text === "joined" ? "castJoined" : "castLeft", { name });
      if (turn.redacted) note("redacted");
      if (turn.status === "pending") note("sending");
      if (turn.kind === "reply" && speaking && !heard) {
        note("thinking", { name });
        if (turn.queue) note("queued", { count: turn.queue });
      }
      if (turn.status === "done" && turn.finish && CUT_SHORT.has(turn.finish)) note(turn.finish);
      if (turn.cut) note("interrupted");
      if (turn.error) parts.push(el("span", { class: "problem", text: turn.error }));
      if (turn.replaced) note("replaced");
      if (turn.status === "failed") parts.push(again());
      // The style sheet shows it under the newest turn only.
      if (turn.kind === "reply" && turn.status === "done" && !speaking) parts.push(anewButton());
      // A written greeting asks no model: it has no prompt, and no time worth a bar.
      if (turn.timings && turn.usage && !speaking) parts.push(timingsBar(turn, i18n, promptButton()));
      return parts;
    }

    function again() {
      const button = el("button", { type: "button", class: "quiet", on: { click: () => onAgain(turn) } });
      return i18n.put(button, "again");
    }

    function anewButton() {
      const button = el("button", { type: "button", class: "quiet anew", on: { click: () => onAnew(turn) } });
      return i18n.put(button, "anew");
    }

    function promptButton() {
      const button = el("button", {
        type: "button",
        class: "quiet prompt-of",
        "aria-haspopup": "dialog",
        on: { click: () => onPrompt(turn) },
      });
      return i18n.put(button, "prompt");
    }

    if (!WORDLESS.has(turn.kind)) head.append(turnMenu(turn, i18n, { onRewind, onRedact }));
    paint(plays);
    return { node, paint };
  };
}
