/** Text counted in Unicode code points, as the protocol counts it. */

/**
 * @param {string} text
 * @returns {number}
 */
export function length(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/**
 * A text in two: its first `count` code points, and the rest.
 * @param {string} text
 * @param {number} count
 * @returns {[string, string]}
 */
export function split(text, count) {
  let index = 0;
  for (const character of text) {
    if (count-- <= 0) break;
    index += character.length;
  }
  return [text.slice(0, index), text.slice(index)];
}

/**
 * The language of a text as far as its letters tell: Korean where there is any Hangul.
 * @param {string} text
 * @returns {"ko" | null}
 */
export function languageOf(text) {
  return /[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]/.test(text) ? "ko" : null;
}

/**
 * Milliseconds for people: "312 ms", "1.24 s".
 * @param {number} ms
 * @returns {string}
 */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}
