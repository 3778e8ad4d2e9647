/** Draws a person from a persona's `portrait`: the parts that no expression changes. */

import { svg } from "./dom.js";

/**
 * @typedef {object} Look
 * @property {"child" | "adult" | "elder"} age
 * @property {string} skin
 * @property {string} hair
 * @property {"short" | "long" | "bun" | "curly" | "bald" | "bob"} hair_style
 * @property {string} clothes
 * @property {"none" | "glasses" | "hat" | "scarf" | "apron" | "flower" | "headset"} accessory
 * @property {boolean} beard
 */

/** Half the width and height of the head by age, and the height of its middle. */
export const HEADS = {
  child: { rx: 82, ry: 86, cy: 208 },
  adult: { rx: 76, ry: 97, cy: 190 },
  elder: { rx: 77, ry: 94, cy: 194 },
};

/**
 * A colour between two.
 * @param {string} from `#rrggbb`
 * @param {string} to `#rrggbb`
 * @param {number} share
 * @returns {string}
 */
export function mix(from, to, share) {
  const [a, b] = [from, to].map((hex) => Number.parseInt(hex.slice(1), 16));
  const channel = (/** @type {number} */ shift) => {
    const [x, y] = [(a >> shift) & 255, (b >> shift) & 255];
    return Math.round(x + (y - x) * share).toString(16).padStart(2, "0");
  };
  return `#${channel(16)}${channel(8)}${channel(0)}`;
}

const darker = (/** @type {string} */ colour, share = 0.2) => mix(colour, "#1a1013", share);
const lighter = (/** @type {string} */ colour, share = 0.2) => mix(colour, "#ffffff", share);
const path = (/** @type {string} */ d, /** @type {string} */ fill, more = {}) =>
  svg("path", { d, fill, ...more });
const oval = (
  /** @type {number} */ cx,
  /** @type {number} */ cy,
  /** @type {number} */ rx,
  /** @type {number} */ ry,
  /** @type {string} */ fill,
  more = {},
) => svg("ellipse", { cx, cy, rx, ry, fill, ...more });
const line = (/** @type {string} */ d, /** @type {string} */ stroke, width = 3, more = {}) =>
  svg("path", { d, stroke, fill: "none", "stroke-width": width, "stroke-linecap": "round", ...more });

/**
 * Neck, shoulders and what is worn there.
 * @param {Look} look
 * @returns {SVGElement}
 */
export function body(look) {
  const { cy, ry } = HEADS[look.age];
  const chin = cy + ry;
  const shoulder = look.age === "child" ? 98 : 128;
  const cloth = look.clothes;
  const left = 200 - shoulder;
  const right = 200 + shoulder;
  const group = svg("g", { class: "body" });
  group.append(
    path(
      `M${left - 14} 440 C${left - 8} ${chin + 78} ${left + 18} ${chin + 52} 164 ${chin + 36}
       L236 ${chin + 36} C${right - 18} ${chin + 52} ${right + 8} ${chin + 78} ${right + 14} 440 Z`,
      cloth,
    ),
    path(
      `M168 ${chin - 36} L168 ${chin + 30} Q200 ${chin + 66} 232 ${chin + 30} L232 ${chin - 36} Z`,
      darker(look.skin, 0.13),
    ),
    line(
      `M162 ${chin + 35} Q200 ${chin + 80} 238 ${chin + 35}`,
      look.accessory === "scarf" ? cloth : lighter(cloth, 0.13),
      8,
    ),
    line(`M${left + 34} 440 Q${left + 40} ${chin + 118} ${left + 48} ${chin + 104}`, darker(cloth), 3),
    line(`M${right - 34} 440 Q${right - 40} ${chin + 118} ${right - 48} ${chin + 104}`, darker(cloth), 3),
  );
  if (look.accessory === "apron") group.append(...apron(chin, cloth));
  if (look.accessory === "scarf") group.append(...scarf(chin, cloth));
  return group;
}

/**
 * @param {number} chin
 * @param {string} cloth
 */
function apron(chin, cloth) {
  const colour = mix(cloth, "#f2e6d2", 0.72);
  return [
    line(`M146 ${chin + 96} L166 ${chin + 38} M254 ${chin + 96} L234 ${chin + 38}`, colour, 11),
    path(`M134 440 L140 ${chin + 92} Q200 ${chin + 106} 260 ${chin + 92} L266 440 Z`, colour),
    line(`M140 ${chin + 94} Q200 ${chin + 108} 260 ${chin + 94}`, darker(colour, 0.18), 3),
  ];
}

/**
 * @param {number} chin
 * @param {string} cloth
 */
function scarf(chin, cloth) {
  const colour = mix(cloth, "#e0674f", 0.65);
  return [
    path(`M214 ${chin + 48} L256 ${chin + 56} L262 440 L222 440 Z`, darker(colour, 0.12)),
    path(
      `M146 ${chin + 16} Q200 ${chin + 58} 254 ${chin + 16} Q266 ${chin + 42} 250 ${chin + 58}
       Q200 ${chin + 88} 150 ${chin + 58} Q134 ${chin + 42} 146 ${chin + 16} Z`,
      colour,
    ),
    line(`M158 ${chin + 44} Q200 ${chin + 72} 242 ${chin + 44}`, darker(colour, 0.16), 3),
  ];
}

/**
 * The head without a face: skull, ears, nose, and the years.
 * @param {Look} look
 * @returns {SVGElement[]}
 */
export function head(look) {
  const { rx, ry, cy } = HEADS[look.age];
  const shade = darker(look.skin, 0.16);
  const parts = [
    oval(200 - rx + 1, cy + 10, 13, 19, look.skin),
    oval(200 + rx - 1, cy + 10, 13, 19, look.skin),
    line(`M${200 - rx - 4} ${cy + 5} q5 5 3 12 M${200 + rx + 4} ${cy + 5} q-5 5 -3 12`, shade),
    path(skull(rx, ry, cy), look.skin),
  ];
  const nose = look.age === "child" ? 7 : 11;
  parts.push(line(`M${200 - nose} ${cy + 26} q${nose} ${nose} ${2 * nose} 0`, shade, 4));
  if (look.age === "elder") {
    parts.push(
      line(`M158 ${cy - 48} q42 -9 84 0 M166 ${cy - 60} q34 -7 68 0`, shade, 2.5, { opacity: 0.6 }),
      line(`M160 ${cy + 26} q-10 12 -6 26 M240 ${cy + 26} q10 12 6 26`, shade, 2.5),
      line(`M${200 - rx + 8} ${cy - 4} l12 5 M${200 + rx - 8} ${cy - 4} l-12 5`, shade, 2.5),
    );
  }
  return parts;
}

/**
 * @param {number} rx
 * @param {number} ry
 * @param {number} cy
 */
function skull(rx, ry, cy) {
  const [l, r, top, chin] = [200 - rx, 200 + rx, cy - ry, cy + ry];
  return `M${l} ${cy - 12} C${l} ${top - 6} ${r} ${top - 6} ${r} ${cy - 12}
    C${r} ${cy + ry * 0.6} ${200 + rx * 0.55} ${chin} 200 ${chin}
    C${200 - rx * 0.55} ${chin} ${l} ${cy + ry * 0.6} ${l} ${cy - 12} Z`;
}

/**
 * Hair behind the head and shoulders.
 * @param {Look} look
 * @returns {SVGElement[]}
 */
export function hairBehind(look) {
  const { rx, ry, cy } = HEADS[look.age];
  const colour = darker(look.hair, 0.22);
  const [l, r, top] = [200 - rx, 200 + rx, cy - ry];
  switch (look.hair_style) {
    case "long":
      return [
        path(
          `M${l - 20} ${cy + 150} C${l - 40} ${cy - 20} ${l - 26} ${top - 24} 200 ${top - 24}
           C${r + 26} ${top - 24} ${r + 40} ${cy - 20} ${r + 20} ${cy + 150}
           Q${r - 12} ${cy + 166} 200 ${cy + 120} Q${l + 12} ${cy + 166} ${l - 20} ${cy + 150} Z`,
          colour,
        ),
      ];
    case "bob":
      return [
        path(
          `M${l - 12} ${cy + 76} C${l - 34} ${cy - 40} ${l - 20} ${top - 22} 200 ${top - 22}
           C${r + 20} ${top - 22} ${r + 34} ${cy - 40} ${r + 12} ${cy + 76}
           Q200 ${cy + 96} ${l - 12} ${cy + 76} Z`,
          colour,
        ),
      ];
    case "bun":
      return [oval(200, top - 26, 40, 36, colour), line(`M172 ${top - 4} q28 -12 56 0`, look.hair, 6)];
    case "curly":
      return ring(rx + 12, ry * 0.86, cy - 24, 26, 9, Math.PI * 0.94, Math.PI * 2.06, colour);
    default:
      return [];
  }
}

/**
 * Curls in a row on an arc around the head.
 * @param {number} rx
 * @param {number} ry
 * @param {number} cy
 * @param {number} size
 * @param {number} count
 * @param {number} from Radians.
 * @param {number} to Radians.
 * @param {string} colour
 */
function ring(rx, ry, cy, size, count, from, to, colour) {
  return Array.from({ length: count }, (_, index) => {
    const angle = from + ((to - from) * index) / (count - 1);
    return oval(200 + rx * Math.cos(angle), cy + ry * Math.sin(angle), size, size, colour);
  });
}

/**
 * Hair that falls before the brow, and the beard.
 * @param {Look} look
 * @returns {SVGElement[]}
 */
export function hairBefore(look) {
  const parts = look.beard ? beard(look) : [];
  const { rx, ry, cy } = HEADS[look.age];
  const [l, r, top] = [200 - rx, 200 + rx, cy - ry];
  const crown = `C${l - 14} ${top + 6} ${l + 28} ${top - 22} 200 ${top - 22}
    C${r - 28} ${top - 22} ${r + 14} ${top + 6}`;
  const shine = line(
    `M${l + 30} ${top + 22} Q${l + 52} ${top - 2} 192 ${top - 6}`,
    lighter(look.hair, 0.24),
    5,
    { opacity: 0.55 },
  );
  const side = cy - (look.age === "child" ? 4 : 12);
  switch (look.hair_style) {
    case "short":
      return parts.concat(
        path(
          `M${l - 5} ${side} ${crown} ${r + 5} ${side} L${r - 7} ${cy - 30}
           Q${r - 14} ${top + 44} ${r - 36} ${top + 36} Q226 ${top + 56} 168 ${top + 38}
           Q${l + 26} ${top + 46} ${l + 7} ${cy - 30} Z`,
          look.hair,
        ),
        shine,
      );
    case "long":
    case "bun":
      return parts.concat(
        path(
          `M${l - 7} ${side + 16} ${crown} ${r + 7} ${side + 16} Q${r - 2} ${top + 62} 214 ${top + 26}
           Q${l + 8} ${top + 52} ${l - 7} ${side + 16} Z`,
          look.hair,
        ),
        shine,
      );
    case "bob":
      return parts.concat(
        path(
          `M${l - 10} ${cy + 70} C${l - 34} ${cy - 20} ${l - 12} ${top - 22} 200 ${top - 22}
           C${r + 12} ${top - 22} ${r + 34} ${cy - 20} ${r + 10} ${cy + 70}
           Q${r - 18} ${cy + 30} ${r - 5} ${cy - 26} Q200 ${cy - 58} ${l + 5} ${cy - 26}
           Q${l + 18} ${cy + 30} ${l - 10} ${cy + 70} Z`,
          look.hair,
        ),
        shine,
      );
    case "curly":
      return parts.concat(
        ...ring(rx - 8, ry * 0.74, cy - 30, 24, 8, Math.PI * 1.06, Math.PI * 1.94, look.hair),
        oval(200, top + 10, 58, 30, look.hair),
      );
    default:
      return parts.concat(
        line(`M158 ${top + 26} Q176 ${top + 8} 202 ${top + 8}`, lighter(look.skin, 0.4), 6, {
          opacity: 0.7,
        }),
      );
  }
}

/** @param {Look} look */
function beard(look) {
  const { rx, ry, cy } = HEADS[look.age];
  const [l, r, chin] = [200 - rx, 200 + rx, cy + ry];
  return [
    path(
      `M${l + 2} ${cy + 6} Q${l + 10} ${cy + 46} 166 ${cy + 46} Q200 ${cy + 30} 234 ${cy + 46}
       Q${r - 10} ${cy + 46} ${r - 2} ${cy + 6} C${r + 4} ${cy + ry * 0.72} 240 ${chin + 26}
       200 ${chin + 26} C160 ${chin + 26} ${l - 4} ${cy + ry * 0.72} ${l + 2} ${cy + 6} Z`,
      look.hair,
    ),
    line(`M184 ${chin + 4} q16 9 32 0`, darker(look.hair, 0.25), 3),
  ];
}

/**
 * What is worn on the head.
 * @param {Look} look
 * @returns {SVGElement[]}
 */
export function headwear(look) {
  const { rx, ry, cy } = HEADS[look.age];
  const [l, r, top] = [200 - rx, 200 + rx, cy - ry];
  const dark = "#3a3535";
  switch (look.accessory) {
    case "glasses": {
      const frame = { fill: "#ffffff", "fill-opacity": 0.16, stroke: dark, "stroke-width": 4.5 };
      return [
        svg("rect", { x: 136, y: cy - 25, width: 54, height: 46, rx: 21, ...frame }),
        svg("rect", { x: 210, y: cy - 25, width: 54, height: 46, rx: 21, ...frame }),
        line(`M190 ${cy - 4} q10 -7 20 0 M136 ${cy - 6} L${l + 3} ${cy - 12} M264 ${cy - 6} L${r - 3} ${cy - 12}`, dark, 4.5),
      ];
    }
    case "hat": {
      const felt = darker(mix(look.clothes, "#6b4d33", 0.45), 0.15);
      return [
        path(`M${l + 6} ${top + 34} C${l + 4} ${top - 50} ${r - 4} ${top - 50} ${r - 6} ${top + 34} Z`, felt),
        path(`M${l + 4} ${top + 14} Q200 ${top + 30} ${r - 4} ${top + 14} L${r - 5} ${top + 32} Q200 ${top + 48} ${l + 5} ${top + 32} Z`, lighter(felt, 0.3)),
        path(`M${l - 44} ${top + 30} Q200 ${top + 74} ${r + 44} ${top + 30} Q200 ${top + 18} ${l - 44} ${top + 30} Z`, darker(felt, 0.12)),
      ];
    }
    case "flower": {
      const [x, y] = [r - 22, top + 30];
      const petals = Array.from({ length: 5 }, (_, index) => {
        const angle = (index * 2 * Math.PI) / 5;
        return oval(x + 13 * Math.cos(angle), y + 13 * Math.sin(angle), 10, 10, "#f2a7b5");
      });
      return [...petals, oval(x, y, 8, 8, "#f6d365")];
    }
    case "headset":
      return [
        line(`M${l - 6} ${cy + 4} C${l - 8} ${top - 44} ${r + 8} ${top - 44} ${r + 6} ${cy + 4}`, dark, 9),
        svg("rect", { x: l - 18, y: cy - 14, width: 22, height: 46, rx: 10, fill: dark }),
        svg("rect", { x: r - 4, y: cy - 14, width: 22, height: 46, rx: 10, fill: dark }),
        line(`M${l - 8} ${cy + 30} Q${l - 4} ${cy + 70} 168 ${cy + 72}`, dark, 5),
        oval(166, cy + 72, 9, 6, dark),
      ];
    default:
      return [];
  }
}
