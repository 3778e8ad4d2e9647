/** Lines from a speaker's head to those of its addressees. */

import { svg } from "./dom.js";

const GAP = 5;

/**
 * An arc between two points that bends to one side.
 * @param {{x: number, y: number, r: number}} from The middle of a head, and its radius.
 * @param {{x: number, y: number, r: number}} to
 * @returns {string} The path.
 */
export function arc(from, to) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const distance = Math.hypot(dx, dy) || 1;
  const bend = Math.min(46, distance / 4) * (dx < 0 ? -1 : 1);
  const middle = {
    x: (from.x + to.x) / 2 + (dy / distance) * bend,
    y: (from.y + to.y) / 2 - (dx / distance) * bend,
  };
  const [a, b] = [edge(from, middle), edge(to, middle)];
  return `M${a.x} ${a.y} Q${round(middle.x)} ${round(middle.y)} ${b.x} ${b.y}`;
}

/**
 * Where the edge of a head is, seen from a point.
 * @param {{x: number, y: number, r: number}} head
 * @param {{x: number, y: number}} point
 */
function edge(head, point) {
  const [dx, dy] = [point.x - head.x, point.y - head.y];
  const share = (head.r + GAP) / (Math.hypot(dx, dy) || 1);
  return { x: round(head.x + dx * share), y: round(head.y + dy * share) };
}

const round = (/** @type {number} */ value) => Math.round(value * 10) / 10;

/** A layer over the heads on which the lines are drawn. */
export function arrows() {
  const tip = svg(
    "marker",
    {
      id: "tip",
      viewBox: "0 0 8 8",
      refX: 7,
      refY: 4,
      markerWidth: 11,
      markerHeight: 11,
      markerUnits: "userSpaceOnUse",
      orient: "auto",
    },
    svg("path", { d: "M0 0.5 L8 4 L0 7.5 Z" }),
  );
  const paths = svg("g", {});
  const node = svg("svg", { class: "arrows", "aria-hidden": "true" }, svg("defs", {}, tip), paths);

  return {
    node,

    /**
     * @param {HTMLElement} picture The layer lies over it.
     * @param {HTMLElement | undefined} from
     * @param {HTMLElement[]} to
     * @param {{whisper: boolean}} how
     */
    draw(picture, from, to, { whisper }) {
      const origin = picture.getBoundingClientRect();
      const middle = (/** @type {HTMLElement} */ head) => {
        const { left, top, width } = (head.firstElementChild ?? head).getBoundingClientRect();
        return { x: left - origin.left + width / 2, y: top - origin.top + width / 2, r: width / 2 };
      };
      const drawn = from
        ? to
            .filter((head) => head !== from)
            .map((head) => svg("path", { d: arc(middle(from), middle(head)), "marker-end": "url(#tip)" }))
        : [];
      paths.replaceChildren(...drawn);
      paths.setAttribute("class", whisper ? "whisper" : "");
    },
  };
}
