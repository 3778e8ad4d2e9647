/** Where the time of a reply went, as a small bar with its numbers. */

import { el } from "./dom.js";
import { duration } from "./text.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./i18n.js").I18n} I18n */

/**
 * The three stretches of a reply's time, in milliseconds. A reply without a first token (an
 * authored line) has no prefill.
 * @param {{queue_ms: number, first_token_ms?: number, total_ms: number}} timings
 * @returns {{queue: number, prefill: number, generate: number}}
 */
export function stretches({ queue_ms: queue, first_token_ms: first, total_ms: total }) {
  const spoken = first ?? queue;
  return {
    queue,
    prefill: Math.max(0, spoken - queue),
    generate: Math.max(0, total - spoken),
  };
}

/**
 * @param {Turn} turn With timings.
 * @param {I18n} i18n
 * @param {HTMLElement} more What comes after the numbers.
 * @returns {HTMLElement}
 */
export function timingsBar(turn, i18n, more) {
  const timings = /** @type {NonNullable<Turn["timings"]>} */ (turn.timings);
  const parts = stretches(timings);
  const bar = el("span", { class: "bar", role: "img" });
  const numbers = el("span", { class: "numbers" });
  for (const [name, ms] of Object.entries(parts)) {
    const piece = el("span", { class: name });
    piece.style.flexGrow = String(ms);
    bar.append(piece);
    const label = i18n.put(el("span", { class: "name" }), name);
    numbers.append(el("span", { class: `number ${name}` }, label, ` ${duration(ms)}`));
  }
  const values = Object.fromEntries(
    Object.entries(parts).map(([name, ms]) => [name, duration(ms)]),
  );
  i18n.put(bar, "barLabel", values, "tLabel");
  const time = duration(timings.total_ms);
  numbers.append(i18n.put(el("span", { class: "number" }), "total", { time }));
  const row = el("span", { class: "row" });
  if (turn.usage) row.append(i18n.put(el("span", { class: "tokens" }), "tokens", turn.usage));
  if (turn.degraded) row.append(i18n.put(el("span", { class: "tokens" }), turn.degraded));
  row.append(more);
  return el("div", { class: "timings" }, el("span", { class: "row" }, bar, numbers), row);
}
