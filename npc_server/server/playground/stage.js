/** The stage: who one talks with, and how they feel. */

import { isSeveral, npcsIn } from "./members.js";
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
 * @param {(npc: string | undefined) => import("./chooser.js").Persona | undefined} options.persona
 * @param {(id: string | null) => import("./scenes.js").Scene | undefined} options.scene
 */
export function createStage({ stage, picture, name, summary, mood, gesture, i18n, persona, scene }) {
  /** @type {ReturnType<typeof livePortrait> | null} */
  let portrait = null;
  let shown = "";
  let staged = "";

  /**
   * @param {HTMLElement} node
   * @param {string} text
   */
  function write(node, text) {
    node.textContent = text;
    node.lang = languageOf(text) ?? "en";
  }

  return {
    /**
     * @param {import("./chooser.js").Persona} chosen
     * @param {string} called The name in this conversation.
     */
    enter(chosen, called) {
      if (portrait && shown === chosen.id) return;
      portrait?.remove();
      shown = chosen.id;
      portrait = livePortrait(chosen.portrait);
      picture.replaceChildren(portrait.node);
      picture.hidden = false;
      stage.classList.remove("several");
      stage.style.setProperty("--tint", chosen.portrait.clothes);
      write(name, called);
      write(summary, chosen.summary);
      this.feel({ emotion: "neutral", intensity: 0 });
    },

    /**
     * Show with whom one talks: one, or who is meant by a scene or a list of names.
     * @param {import("./conversation.js").Conversation} state
     * @returns {boolean} Whether that is another now.
     */
    show(state) {
      const npcs = npcsIn(state);
      const several = isSeveral(state);
      const now = JSON.stringify([several, state.id, state.scene, npcs]);
      if (now === staged || !npcs.length) return false;
      staged = now;
      stage.classList.toggle("several", several);
      picture.hidden = several;
      if (several) this.enterMany(scene(state.scene), npcs);
      else this.enterOne(state, npcs[0]);
      return true;
    },

    /**
     * @param {import("./conversation.js").Conversation} state
     * @param {import("./members.js").Member} npc
     */
    enterOne(state, npc) {
      const known = persona(npc.npc);
      if (!known) return;
      this.enter(known, npc.name);
      const emotion = state.moods.get(npc.member)?.emotion;
      if (emotion) this.feel({ emotion, intensity: 0.5 });
    },

    /**
     * @param {import("./scenes.js").Scene | undefined} place
     * @param {import("./members.js").Member[]} npcs
     */
    enterMany(place, npcs) {
      portrait?.remove();
      portrait = null;
      shown = "";
      stage.style.removeProperty("--tint");
      write(name, place?.title ?? npcs.map((npc) => npc.name).join(", "));
      write(summary, place?.summary ?? "");
      mood.textContent = gesture.textContent = "";
      delete mood.dataset.t;
    },

    /** @param {{emotion: string, intensity: number, gesture?: string}} feeling */
    feel({ emotion, intensity, gesture: made }) {
      if (!portrait) return;
      portrait.feel(emotion, intensity);
      i18n.put(mood, emotion);
      const label = { name: name.textContent ?? "", emotion: i18n.t(emotion) };
      i18n.put(picture, "portraitLabel", label, "tLabel");
      gesture.textContent = made ? made.replaceAll("_", " ") : "";
      if (made) portrait.gesture(made);
    },

    talk: () => portrait?.talk(),

    leave() {
      portrait?.remove();
      portrait = null;
      shown = staged = "";
    },
  };
}
