/** The raw frames of both directions, newest last, bounded. */

import { el } from "./dom.js";

const KEPT = 500;

/**
 * @typedef {object} Entry
 * @property {"in" | "out"} direction
 * @property {any} frame
 * @property {boolean} director Whether it went over the director's connection.
 * @property {number} at Milliseconds since the page was opened.
 * @property {HTMLElement} [node] Made when it is first shown.
 */

/**
 * A frame that may be shown to people who look over one's shoulder: without the API key.
 * @param {any} frame
 * @returns {any}
 */
export function withoutSecrets(frame) {
  return frame.token ? { ...frame, token: "…" } : frame;
}

/**
 * @param {object} options
 * @param {HTMLElement} options.panel
 * @param {HTMLElement} options.list
 * @param {HTMLInputElement} options.filter
 * @param {HTMLSelectElement} options.direction
 * @param {HTMLElement} options.count
 * @param {HTMLButtonElement} options.copy
 * @param {HTMLButtonElement} options.clear
 * @param {import("./i18n.js").I18n} options.i18n
 */
export function createFrames({ panel, list, filter, direction, count, copy, clear, i18n }) {
  /** @type {Entry[]} */
  let entries = [];
  let drawing = 0;

  /** @param {Entry} entry */
  function wanted(entry) {
    if (direction.value !== "all" && entry.direction !== direction.value) return false;
    const words = filter.value.trim().toLowerCase();
    return !words || JSON.stringify(entry.frame).toLowerCase().includes(words);
  }

  function later() {
    if (!panel.hidden && !drawing) drawing = requestAnimationFrame(draw);
  }

  function draw() {
    drawing = 0;
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const shown = entries.filter(wanted);
    const nodes = new Set(shown.map((entry) => (entry.node ??= row(entry))));
    for (const child of [...list.children]) {
      if (!nodes.has(/** @type {HTMLElement} */ (child))) child.remove();
    }
    let place = list.firstElementChild;
    for (const node of nodes) {
      if (node === place) place = place.nextElementSibling;
      else list.insertBefore(node, place);
    }
    i18n.put(count, "framesCount", { shown: shown.length, count: entries.length });
    if (atEnd) list.scrollTop = list.scrollHeight;
  }

  /** @param {Entry} entry */
  function row({ direction: way, frame, at, director }) {
    const arrow = el("span", { class: `way ${way}`, role: "img", text: way === "in" ? "↓" : "↑" });
    i18n.put(arrow, way === "in" ? "received" : "sent", undefined, "tLabel");
    const summary = el(
      "summary",
      {},
      arrow,
      el("code", { class: "type", text: frame.type }),
      ...(director ? [i18n.put(el("span", { class: "mark" }), "director")] : []),
      el("span", { class: "gist", text: gist(frame) }),
      el("time", { text: (at / 1000).toFixed(3) }),
    );
    const details = el("details", {}, summary);
    details.addEventListener("toggle", () => {
      if (details.childElementCount === 1) {
        details.append(el("pre", { tabindex: "0", text: JSON.stringify(frame, null, 2) }));
      }
    });
    return el("li", { "data-type": frame.type, "data-way": way }, details);
  }

  copy.addEventListener("click", async () => {
    const lines = entries.filter(wanted).map(({ direction: way, frame }) =>
      JSON.stringify({ direction: way, frame }),
    );
    const done = await navigator.clipboard?.writeText(lines.join("\n")).then(
      () => true,
      () => false,
    );
    i18n.put(copy, done ? "copied" : "copyFailed");
    setTimeout(() => i18n.put(copy, "copy"), 1_600);
  });
  clear.addEventListener("click", () => {
    entries = [];
    later();
  });
  filter.addEventListener("input", later);
  direction.addEventListener("change", later);

  return {
    /**
     * @param {"in" | "out"} way
     * @param {any} frame
     * @param {boolean} [director] Whether it goes over the director's connection.
     */
    add(way, frame, director = false) {
      const at = performance.now();
      entries.push({ direction: way, frame: withoutSecrets(frame), at, director });
      if (entries.length > KEPT) entries.splice(0, entries.length - KEPT);
      later();
    },

    /** @param {boolean} open */
    toggle(open) {
      panel.hidden = !open;
      later();
    },
  };
}

/** @param {any} frame */
function gist(frame) {
  const telling = [frame.text, frame.code, frame.state, frame.emotion, frame.finish, frame.re];
  return telling.find((value) => typeof value === "string") ?? "";
}
