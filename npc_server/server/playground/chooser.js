/** The cards from which a persona is chosen. */

import { el } from "./dom.js";
import { stillPortrait } from "./portrait.js";
import { languageOf } from "./text.js";

/**
 * @typedef {object} Persona
 * @property {string} id
 * @property {string} name
 * @property {string[]} languages
 * @property {string} summary
 * @property {import("./figure.js").Look} portrait
 */

/** @returns {Promise<Persona[]>} */
export async function fetchPersonas() {
  const response = await fetch("/personas");
  if (!response.ok) throw new Error(`personas: HTTP ${response.status}`);
  return response.json();
}

/**
 * Those who speak the reader's language come first; otherwise the server's order stays.
 * @param {Persona[]} personas
 * @param {string} language
 * @returns {Persona[]}
 */
export function inOrder(personas, language) {
  const speaks = (/** @type {Persona} */ p) => p.languages[0]?.split("-")[0] === language;
  return [...personas.filter(speaks), ...personas.filter((p) => !speaks(p))];
}

/**
 * @param {Persona} persona
 * @param {import("./i18n.js").I18n} i18n
 * @param {(persona: Persona) => void} onChoose
 * @returns {HTMLElement}
 */
export function personaCard(persona, i18n, onChoose) {
  const picture = el("span", { class: "picture" }, stillPortrait(persona.portrait, "relaxed"));
  picture.style.setProperty("--tint", persona.portrait.clothes);
  const button = el(
    "button",
    { type: "button", class: "card", "data-npc": persona.id, on: { click: () => onChoose(persona) } },
    picture,
    el("span", { class: "name", text: persona.name, lang: languageOf(persona.name) }),
    el("span", { class: "summary", text: persona.summary, lang: languageOf(persona.summary) }),
    el("span", { class: "languages" }, ...persona.languages.map(languageMark)),
  );
  i18n.put(button, "talkWith", { name: persona.name }, "tTitle");
  return el("li", {}, button);
}

/** @param {string} tag */
function languageMark(tag) {
  return el("span", { class: "mark", text: nameOf(tag) });
}

/**
 * A language's own name.
 * @param {string} tag BCP 47
 * @returns {string}
 */
function nameOf(tag) {
  try {
    return new Intl.DisplayNames([tag], { type: "language" }).of(tag) ?? tag;
  } catch {
    return tag;
  }
}
