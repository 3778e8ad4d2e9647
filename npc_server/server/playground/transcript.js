/** The list of turns: keeps the newest in view unless the reader has scrolled away. */

import { el } from "./dom.js";
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
 */
export function createTranscript({ scroller, list, empty, live, i18n, ...on }) {
  const turnView = createTurnView({ i18n, ...on });
  /** @type {Map<Turn, {node: HTMLElement, paint: (playing: boolean) => void}>} */
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
   * @param {Turn | null} playing
   */
  function make(state, turn, playing) {
    const mine = turn.speaker === state.me;
    const name = state.cast.get(turn.speaker)?.name ?? turn.speaker;
    const view = turnView(turn, { name, mine, playing: turn === playing });
    views.set(turn, view);
    return view.node;
  }

  return {
    /**
     * Show these turns as they are now; new ones come at their place.
     * @param {Conversation} state
     * @param {Turn[]} turns
     * @param {Turn | null} playing
     */
    show(state, turns, playing) {
      for (const turn of turns) {
        const view = views.get(turn);
        if (view) view.paint(turn === playing);
        else list.append(make(state, turn, playing));
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
      list.prepend(...turns.map((turn) => make(state, turn, null)));
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
