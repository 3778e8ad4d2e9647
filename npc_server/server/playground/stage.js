/** The stage: who one talks with, and how they feel. */

import { livePortrait } from "./portrait.js";
import { languageOf } from "./text.js";

/**
 * @param {object} options
 * @param {HTMLElement} options.stage
 * @param {HTMLElement} options.picture
 * @param {HTMLElement} options.name
 * @param {HTMLElement} options.summary
 * @param {HTMLElement} options.mood
 * @param {HTMLElement} options.gesture
 * @param {import("./i18n.js").I18n} options.i18n
 */
export function createStage({ stage, picture, name, summary, mood, gesture, i18n }) {
  /** @type {ReturnType<typeof livePortrait> | null} */
  let portrait = null;
  let shown = "";

  return {
    /**
     * @param {import("./chooser.js").Persona} persona
     * @param {string} called The name in this conversation.
     */
    enter(persona, called) {
      if (portrait && shown === persona.id) return;
      portrait?.remove();
      shown = persona.id;
      portrait = livePortrait(persona.portrait);
      picture.replaceChildren(portrait.node);
      stage.style.setProperty("--tint", persona.portrait.clothes);
      for (const [node, text] of [[name, called], [summary, persona.summary]]) {
        const field = /** @type {HTMLElement} */ (node);
        field.textContent = /** @type {string} */ (text);
        field.lang = languageOf(/** @type {string} */ (text)) ?? "en";
      }
      this.feel({ emotion: "neutral", intensity: 0 });
    },

    /** @param {{emotion: string, intensity: number, gesture?: string}} feeling */
    feel({ emotion, intensity, gesture: made }) {
      portrait?.feel(emotion, intensity);
      i18n.put(mood, emotion);
      const label = { name: name.textContent ?? "", emotion: i18n.t(emotion) };
      i18n.put(picture, "portraitLabel", label, "tLabel");
      gesture.textContent = made ? made.replaceAll("_", " ") : "";
      if (made) portrait?.gesture(made);
    },

    talk: () => portrait?.talk(),

    leave() {
      portrait?.remove();
      portrait = null;
      shown = "";
    },
  };
}
