/** How a conversation went, and how it went otherwise: a tree that grows with every rewind. */

import { el, svg } from "./dom.js";
import { languageOf } from "./text.js";

const ROW = 46;
const WIDTH = 112;
const MARGIN = 10;
const WORDS = 60;

/**
 * @typedef {object} Branch
 * @property {string} id
 * @property {string | null} parent The branch from which it forks; null where that was not seen.
 * @property {number} start How many turns it shares with its parent.
 * @property {number} end How many turns it had when it was left.
 * @property {string} words Its newest ones when it was left.
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** @param {{kind: string, text: string}[]} turns */
const spoken = (turns) => turns.filter(({ kind }) => kind !== "silent" && kind !== "cast");

/**
 * The branches after `conversation.reset`.
 * @param {Conversation} state As it was before it.
 * @param {any} event
 * @returns {Branch[]}
 */
export function grown(state, event) {
  const left = state.branch ?? event.branches.at(-1) ?? null;
  const known = new Map(state.branches.map((branch) => [branch.id, branch]));
  const turns = spoken(state.turns);
  if (left !== null) {
    const before = known.get(left) ?? { id: left, parent: null, start: 0 };
    known.set(left, { ...before, end: turns.length, words: lastOf(turns) });
  }
  const start = event.tail.length;
  if (!known.has(event.branch)) {
    const parent = bearer(known, left, start);
    const fresh = { id: event.branch, parent, start, end: start, words: lastOf(event.tail) };
    known.set(event.branch, fresh);
  }
  for (const id of event.branches) {
    if (!known.has(id)) known.set(id, { id, parent: null, start: 0, end: 1, words: "" });
  }
  const kept = new Set([event.branch, ...event.branches]);
  return [...known.values()].filter(({ id }) => kept.has(id));
}

/**
 * From which branch a new one forks: where the turn to which it went back was shared with an older
 * one, from that.
 * @param {Map<string, Branch>} known
 * @param {string | null} left The branch that was left for it.
 * @param {number} start How many turns the new one begins with.
 * @returns {string | null}
 */
function bearer(known, left, start) {
  const branch = left === null ? undefined : known.get(left);
  if (!branch || branch.parent === null || start > branch.start) return left;
  return bearer(known, branch.parent, start);
}

/** @param {{text: string}[]} turns */
function lastOf(turns) {
  const text = turns.findLast((turn) => turn.text)?.text ?? "";
  return text.length > WORDS ? `${text.slice(0, WORDS)}…` : text;
}

/**
 * The branches in the order in which they are drawn: each one's forks below it.
 * @param {Branch[]} branches
 * @returns {Branch[]}
 */
export function inRows(branches) {
  const ids = new Set(branches.map(({ id }) => id));
  const under = (/** @type {string | null} */ parent) =>
    branches
      .filter((b) => (b.parent !== null && ids.has(b.parent) ? b.parent : null) === parent)
      .flatMap((/** @type {Branch} */ b) => [b, ...under(b.id)]);
  return under(null);
}

/**
 * The tree: a line for each branch, and beside it a button that returns to it.
 * @param {Conversation} state
 * @param {import("./i18n.js").I18n} i18n
 * @param {(branch: string) => void} onReturn
 * @returns {HTMLElement}
 */
export function branchTree(state, i18n, onReturn) {
  const now = spoken(state.turns);
  const rows = inRows(state.branches).map((branch) =>
    branch.id === state.branch
      ? { ...branch, end: Math.max(branch.start, now.length), words: lastOf(now) }
      : branch,
  );
  const most = Math.max(1, ...rows.map(({ end }) => end));
  const at = (/** @type {number} */ turns) => MARGIN + ((WIDTH - 2 * MARGIN) * turns) / most;
  const lines = rows.flatMap((branch, row) => {
    const above = rows.findIndex(({ id }) => id === branch.parent);
    return line(branch, row, above, at, branch.id === state.branch);
  });
  const height = rows.length * ROW;
  const picture = svg(
    "svg",
    { class: "lines", width: WIDTH, height, viewBox: `0 0 ${WIDTH} ${height}`, "aria-hidden": "true" },
    ...lines,
  );
  const items = rows.map((branch) => item(branch, branch.id === state.branch, i18n, onReturn));
  return el("div", { class: "tree" }, picture, el("ol", {}, ...items));
}

/**
 * @param {Branch} branch
 * @param {number} row
 * @param {number} above The row of its parent, or -1.
 * @param {(turns: number) => number} at
 * @param {boolean} current
 */
function line({ start, end }, row, above, at, current) {
  const y = (row + 0.5) * ROW;
  const [from, to] = [at(start), Math.max(at(end), at(start) + 8)];
  const parentY = (above + 0.5) * ROW;
  const fork =
    above < 0 ? `M${from} ${y}` : `M${from} ${parentY} C${from} ${y} ${from} ${y} ${from + 8} ${y}`;
  return [
    svg("path", { d: `${fork} L${to} ${y}`, class: current ? "branch current" : "branch" }),
    svg("circle", { cx: to, cy: y, r: current ? 6 : 4, class: current ? "tip current" : "tip" }),
  ];
}

/**
 * @param {Branch} branch
 * @param {boolean} current
 * @param {import("./i18n.js").I18n} i18n
 * @param {(branch: string) => void} onReturn
 */
function item({ id, words }, current, i18n, onReturn) {
  const text = el("span", { class: "branch-words", text: words, lang: languageOf(words), dir: "auto" });
  if (!words) i18n.put(text, "branchUnknown");
  const button = el(
    "button",
    { type: "button", "data-branch": id, disabled: current, on: { click: () => onReturn(id) } },
    text,
    i18n.put(el("span", { class: "note" }), current ? "branchNow" : "branchReturn"),
  );
  return el("li", {}, button);
}
