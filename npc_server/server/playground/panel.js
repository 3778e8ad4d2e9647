/** The Director panel: what a game does to a conversation, by hand. */

import { branchTree } from "./branches.js";
import { createCastList } from "./castlist.js";
import { el } from "./dom.js";
import { createFacts } from "./facts.js";
import { createHappening } from "./happening.js";
import { createSaves } from "./saves.js";
import { createSetting } from "./setting.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./i18n.js").I18n} I18n */
/** @typedef {import("./director.js").Refusal} Refusal */

/**
 * Sends a command of a host about the conversation that is shown.
 * @typedef {(type: string, fields?: object, take?: (event: any) => boolean) => Promise<any>} Run
 *   Its answer; null where it was refused, of which the panel tells.
 */

/** @type {Record<string, string>} */
const STANDINGS = { connecting: "connecting", player: "needsHost", stopped: "stopped" };

/**
 * @param {object} options
 * @param {HTMLElement} options.panel
 * @param {HTMLElement} options.body
 * @param {HTMLElement} options.note
 * @param {I18n} options.i18n
 * @param {ReturnType<typeof import("./director.js").createDirector>} options.director
 * @param {string} options.me
 * @param {() => Conversation | null} options.conversation
 * @param {() => import("./chooser.js").Persona[]} options.personas
 */
export function createPanel({ panel, body, note, i18n, director, me, conversation, personas }) {
  /** @type {Run} */
  const run = (type, fields = {}, take) => attempt(director.ask(type, fields, take));

  /** @type {Run} */
  async function runHere(type, fields = {}, take) {
    const state = conversation();
    if (!state) return null;
    const where = { conversation: state.id, ...(type === "conversation.join" ? {} : { player: me }) };
    return attempt(director.ask(type, { ...where, ...fields }, take));
  }

  /** @param {Promise<any>} asked */
  async function attempt(asked) {
    try {
      const answer = await asked;
      tell("");
      return answer;
    } catch (refusal) {
      const { code, message } = /** @type {Refusal} */ (refusal);
      tell(code === "no_host" ? i18n.t("needsHost") : message || i18n.t("notDone"));
      return null;
    }
  }

  /** @param {string} message */
  function tell(message) {
    note.textContent = message;
    note.hidden = !message;
  }

  const happening = createHappening({ i18n, run: runHere });
  const setting = createSetting({ i18n, run: runHere });
  const cast = createCastList({ i18n, run: runHere, personas });
  const facts = createFacts({ i18n, run: runHere });
  const saves = createSaves({ i18n, run, tell });
  const tree = el("div", { class: "branches" });
  let drawn = "";

  body.append(
    section("happen", true, happening.node),
    section("castTitle", true, cast.node),
    section("settingTitle", false, setting.node),
    section("factsTitle", false, facts.node),
    section("savesTitle", false, saves.node),
    section("branchesTitle", false, tree),
  );

  /**
   * @param {string} title
   * @param {boolean} open
   * @param {HTMLElement} content
   */
  function section(title, open, content) {
    const summary = i18n.put(el("summary", {}), title);
    return el("details", { class: "part", "data-part": title, open }, summary, content);
  }

  /** @param {Conversation} state */
  function drawTree(state) {
    const now = JSON.stringify([state.branches, state.branch, state.turns.length, i18n.language]);
    if (now === drawn) return;
    drawn = now;
    const known = state.branches.length > 1;
    const none = i18n.put(el("p", { class: "note" }), "branchesNone");
    const go = (/** @type {string} */ branch) => runHere("rewind", { branch });
    tree.replaceChildren(known ? branchTree(state, i18n, go) : none);
  }

  return {
    run: runHere,

    /**
     * Show a conversation as it is now.
     * @param {Conversation} state
     */
    show(state) {
      if (panel.hidden) return;
      for (const part of [happening, setting, cast, facts]) part.show(state);
      drawTree(state);
    },

    /**
     * @param {import("./director.js").Standing} standing
     * @param {string} [message]
     */
    stand(standing, message) {
      body.toggleAttribute("inert", standing !== "host");
      if (standing === "host") {
        tell("");
        saves.list();
      } else if (standing !== "off") tell(message ?? i18n.t(STANDINGS[standing]));
    },
  };
}
