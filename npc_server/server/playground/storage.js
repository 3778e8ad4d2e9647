/** What the page remembers of its user, also where the browser forbids to remember anything. */

import { addressed } from "./address.js";

/**
 * @param {() => Storage} open `localStorage` or `sessionStorage`; reading the property may throw.
 * @returns {{get: (name: string) => string | null, set: (name: string, value: string | null) => void}}
 */
function shelf(open) {
  /** @type {Map<string, string>} */
  const memory = new Map();
  return {
    get(name) {
      try {
        return open().getItem(`npc.${name}`);
      } catch {
        return memory.get(name) ?? null;
      }
    },
    set(name, value) {
      try {
        if (value === null) open().removeItem(`npc.${name}`);
        else open().setItem(`npc.${name}`, value);
      } catch {
        if (value === null) memory.delete(name);
        else memory.set(name, value);
      }
    },
  };
}

/** Kept while the tab is open: the API key. */
export const forTab = shelf(() => sessionStorage);

/**
 * Kept until the user clears it: who plays, and how the page looks. A tab whose address names its
 * player shares nothing with the other tabs.
 */
export const kept = shelf(() => (addressed("player") ? sessionStorage : localStorage));

/**
 * An id that nobody guesses. `crypto.randomUUID` is missing on plain HTTP beyond this machine.
 * @returns {string}
 */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The player's id: that of the address, else one that was made on the first visit.
 * @returns {string}
 */
export function playerId() {
  const known = addressed("player") ?? kept.get("player");
  if (known) return known;
  const made = `player-${newId().slice(0, 12)}`;
  kept.set("player", made);
  return made;
}
