/** The list of turns: keeps the newest in view unless the reader has scrolled away. */

import { el } from "./dom.js";
import { isSeveral, nameOf } from "./members.js";
import { languageOf } from "./text.js";
import { createTurnView } from "./turn.js";

/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Conversation} Conversation */

const NEAR_THE_END_PX = 80;
const ANNOUNCEMENTS_KEPT = 6;

/**
 * @param {object} options
 * @param {HTMLElement} options.scroller
 * @param {HTMLElement} options.list
 * @param {HTMLElement} options.empty Shown while nothing was said.
 * @param {HTMLElement} options.live The polite live region.
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(turn: Turn) => void} options.onPrompt
 * @param {(turn: Turn) => void} options.onAgain
 * @param {(turn: Turn) => void} options.onAnew
 * @param {import("./talk.js").OnAct} options.onAct
 * @param {(turn: Turn) => void} options.onRewind
 * @param {(turn: Turn) => void} options.onRedact
 */
export function createTranscript({ scroller, list, empty, live, i18n, ...on }) {
  const turnView = createTurnView({ i18n, ...on });
  /** @type {Map<Turn, {node: HTMLElement, paint: (plays: boolean) => void}>} */
  const views = new Map();
  let follow = true;

  scroller.addEventListener("scroll", () => {
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    follow = below < NEAR_THE_END_PX;
  });
  new ResizeObserver(keepUp).observe(scroller);

  function keepUp() {
    if (follow) scroller.scrollTop = scroller.scrollHeight;
  }

  /**
   * @param {Conversation} state
   * @param {Turn} turn
   * @param {boolean} plays
   */
  function make(state, turn, plays) {
    const mine = turn.speaker === state.me;
    const name = turn.name ?? nameOf(state, turn.speaker);
    const view = turnView(turn, { name, mine, plays, to: () => toNames(state, turn) });
    views.set(turn, view);
    return view.node;
  }

  /**
   * To whom something was said, as far as that needs saying.
   * @param {Conversation} state
   * @param {Turn} turn
   */
  function toNames(state, turn) {
    if (!isSeveral(state) || turn.kind === "event") return "";
    const others = turn.hearers?.filter((member) => member !== turn.speaker).length;
    if (turn.to.length > 2 && turn.to.length === others) return i18n.t("toAll");
    return turn.to
      .map((member) => (member === state.me ? i18n.t("you") : nameOf(state, member)))
      .join(", ");
  }

  return {
    /**
     * Show these turns as they are now; new ones come at their place.
     * @param {Conversation} state
     * @param {Turn[]} turns
     * @param {(turn: Turn) => boolean} plays
     */
    show(state, turns, plays) {
      for (const turn of turns) {
        const view = views.get(turn);
        if (view) view.paint(plays(turn));
        else list.append(make(state, turn, plays(turn)));
      }
      empty.hidden = list.childElementCount > 0;
      keepUp();
    },

    /**
     * Show older turns above, without moving what is being read.
     * @param {Conversation} state
     * @param {Turn[]} turns
     */
    showBefore(state, turns) {
      const below = scroller.scrollHeight - scroller.scrollTop;
      list.prepend(...turns.map((turn) => make(state, turn, false)));
      scroller.scrollTop = scroller.scrollHeight - below;
    },

    /**
     * Read a whole sentence out to people who listen to the page.
     * @param {string} text
     */
    announce(text) {
      live.append(el("p", { text, lang: languageOf(text) }));
      while (live.childElementCount > ANNOUNCEMENTS_KEPT) live.firstElementChild?.remove();
    },

    /** The reader wants to see the newest. */
    toEnd() {
      follow = true;
      keepUp();
    },

    clear() {
      views.clear();
      list.replaceChildren();
      live.replaceChildren();
      empty.hidden = false;
      follow = true;
    },
  };
}
