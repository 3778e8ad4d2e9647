/** How players look, whom no file describes: drawn from their id, so that all pages agree. */

/** @typedef {import("./figure.js").Look} Look */

const SKINS = ["#f2d3b8", "#e3b48f", "#c98f63", "#9a653f", "#6d4529"];
const HAIRS = ["#2a2220", "#4a3222", "#7a4f2a", "#a3743c", "#35383f"];
/** @type {Look["hair_style"][]} */
const STYLES = ["short", "long", "bun", "curly", "bob"];
const CLOTHES = ["#4f6d8f", "#8a5a6b", "#5e7f5b", "#9a7440", "#6a5f94", "#4e8a86"];

/**
 * A number that the same text always gives (FNV-1a).
 * @param {string} text
 */
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (const character of text) {
    hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193) >>> 0;
  }
  return hash;
}

/**
 * @param {string} player A player's member id.
 * @returns {Look}
 */
export function lookOf(player) {
  const pick = (/** @type {any[]} */ from, /** @type {string} */ what) =>
    from[hashOf(`${what} ${player}`) % from.length];
  return {
    age: "adult",
    skin: pick(SKINS, "skin"),
    hair: pick(HAIRS, "hair"),
    hair_style: pick(STYLES, "style"),
    clothes: pick(CLOTHES, "clothes"),
    accessory: "none",
    beard: false,
  };
}
