/** The scenes that a server has: places with a cast and an opening. */

import { el } from "./dom.js";
import { stillPortrait } from "./portrait.js";
import { languageOf } from "./text.js";

const HEADS = 5;

/**
 * @typedef {object} Scene
 * @property {string} id
 * @property {string} title
 * @property {string[]} languages
 * @property {string} summary
 * @property {{member: string, npc: string, name?: string}[]} cast
 */

/** @returns {Promise<Scene[]>} None where the server knows no scenes. */
export async function fetchScenes() {
  const response = await fetch("/scenes");
  return response.ok ? response.json() : [];
}

/**
 * @param {Scene} scene
 * @param {(npc: string) => import("./figure.js").Look | undefined} look
 * @param {import("./i18n.js").I18n} i18n
 * @param {(scene: string) => void} onEnter
 * @returns {HTMLElement}
 */
export function sceneCard({ id, title, summary, cast }, look, i18n, onEnter) {
  const looks = cast.flatMap(({ npc }) => look(npc) ?? []).slice(0, HEADS);
  const button = el(
    "button",
    { type: "button", class: "scene", "data-scene": id, on: { click: () => onEnter(id) } },
    el("span", { class: "crowd" }, ...looks.map(face)),
    el("span", { class: "name", text: title, lang: languageOf(title) }),
    el("span", { class: "summary", text: summary, lang: languageOf(summary) }),
  );
  return el("li", {}, i18n.put(button, "enterScene", { title }, "tTitle"));
}

/** @param {import("./figure.js").Look} look */
function face(look) {
  const node = el("span", { class: "face" }, stillPortrait(look, "relaxed"));
  node.style.setProperty("--tint", look.clothes);
  return node;
}
