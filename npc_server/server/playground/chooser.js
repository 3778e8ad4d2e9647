/** The cards from which a persona, several of them, or a scene is chosen. */

import { el } from "./dom.js";
import { stillPortrait } from "./portrait.js";
import { fetchScenes, sceneCard } from "./scenes.js";
import { languageOf } from "./text.js";

const MOST = 15;

/**
 * @typedef {object} Persona
 * @property {string} id
 * @property {string} name
 * @property {string[]} languages
 * @property {string} summary
 * @property {import("./figure.js").Look} portrait
 */

/** @returns {Promise<Persona[]>} */
async function fetchPersonas() {
  const response = await fetch("/personas");
  if (!response.ok) throw new Error(`personas: HTTP ${response.status}`);
  return response.json();
}

/**
 * Those who speak the reader's language come first; otherwise the server's order stays.
 * @template {{languages: string[]}} T
 * @param {T[]} personas Or scenes.
 * @param {string} language
 * @returns {T[]}
 */
function inOrder(personas, language) {
  const speaks = (/** @type {T} */ p) => p.languages[0]?.split("-")[0] === language;
  return [...personas.filter(speaks), ...personas.filter((p) => !speaks(p))];
}

/**
 * @param {object} options
 * @param {HTMLElement} options.cards
 * @param {HTMLElement} options.note
 * @param {HTMLElement} options.scenesPart
 * @param {HTMLElement} options.scenes
 * @param {HTMLButtonElement} options.several Switches to choosing several.
 * @param {HTMLElement} options.bar Shows who is chosen then.
 * @param {HTMLElement} options.names
 * @param {HTMLButtonElement} options.begin
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(choice: import("./talk.js").Choice) => void} options.onChoose
 */
export function createChooser({ cards, note, scenesPart, scenes, several, bar, names, begin, i18n, onChoose }) {
  /** @type {Persona[]} */
  let personas = [];
  /** @type {import("./scenes.js").Scene[]} */
  let listed = [];
  /** @type {Set<string>} In the order of the choice. */
  const chosen = new Set();
  let many = false;

  /** @param {Persona} persona */
  function choose({ id }) {
    if (!many) {
      onChoose({ npcs: [id] });
      return;
    }
    if (!chosen.delete(id) && chosen.size < MOST) chosen.add(id);
    mark();
  }

  function mark() {
    for (const card of cards.querySelectorAll(".card")) {
      const { npc = "" } = /** @type {HTMLElement} */ (card).dataset;
      if (many) card.setAttribute("aria-pressed", String(chosen.has(npc)));
      else card.removeAttribute("aria-pressed");
    }
    several.setAttribute("aria-pressed", String(many));
    bar.hidden = !many;
    begin.disabled = !chosen.size;
    const called = (/** @type {string} */ id) => personas.find((p) => p.id === id)?.name ?? id;
    if (chosen.size) i18n.put(names, "chosen", { names: [...chosen].map(called).join(", ") });
    else i18n.put(names, "chooseSeveral");
  }

  /** @param {boolean} on */
  function chooseMany(on) {
    many = on;
    chosen.clear();
    mark();
  }

  several.addEventListener("click", () => chooseMany(!many));
  begin.addEventListener("click", () => {
    const npcs = [...chosen];
    chooseMany(false);
    onChoose({ npcs });
  });

  return {
    /** Fetch what can be chosen, and show it. */
    async load() {
      const [found, places] = await Promise.allSettled([fetchPersonas(), fetchScenes()]);
      if (found.status === "fulfilled") personas = found.value;
      if (places.status === "fulfilled") listed = places.value;
      this.draw();
      note.hidden = personas.length > 0;
      if (found.status === "rejected") i18n.put(note, "personasFailed");
      else if (!personas.length) i18n.put(note, "noPersonas");
    },

    draw() {
      const { language } = i18n;
      cards.replaceChildren(...inOrder(personas, language).map((p) => personaCard(p, i18n, choose)));
      scenesPart.hidden = listed.length === 0;
      const look = (/** @type {string} */ npc) => personas.find(({ id }) => id === npc)?.portrait;
      const enter = (/** @type {string} */ scene) => onChoose({ scene });
      scenes.replaceChildren(...inOrder(listed, language).map((s) => sceneCard(s, look, i18n, enter)));
      mark();
    },

    /** @param {string | undefined} npc */
    persona: (npc) => personas.find(({ id }) => id === npc),

    /** @param {string | null} id */
    scene: (id) => listed.find((scene) => scene.id === id),

    /** @returns {Persona[]} */
    get personas() {
      return personas;
    },
  };
}

/**
 * @param {Persona} persona
 * @param {import("./i18n.js").I18n} i18n
 * @param {(persona: Persona) => void} onChoose
 * @returns {HTMLElement}
 */
function personaCard(persona, i18n, onChoose) {
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
