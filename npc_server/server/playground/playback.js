/** Brings a reply onto the screen, at once or at the pace of speech, and tells the server how far. */

import { languageOf, length } from "./text.js";

const SYLLABLES_PER_SECOND = 8;
const LETTERS_PER_SECOND = 16;
const TICK_MS = 50;
const REPORT_EVERY_MS = 400;

/** @typedef {import("./conversation.js").Turn} Turn */

/**
 * @typedef {object} Playing
 * @property {Turn} turn
 * @property {number} total How many code points have come.
 * @property {number} credit How many may be on the screen by now, with a fraction.
 * @property {number} reported When the server was told last.
 * @property {boolean} began Whether the server knows that it plays.
 * @property {{at: number, cue: any}[]} cues Expressions and gestures that are still to come.
 */

/**
 * @param {object} options
 * @param {() => "instant" | "spoken"} options.pace
 * @param {(turn: Turn) => void} options.onShow More of it is on the screen.
 * @param {(cue: any) => void} options.onCue An expression's or a gesture's place was reached.
 * @param {(turn: Turn) => void} options.onEnd All of it was shown.
 * @param {(turn: string, state: "start" | "progress" | "end", heard: number) => void} options.report
 */
export function createPlayback({ pace, onShow, onCue, onEnd, report }) {
  /** @type {Playing | null} */
  let playing = null;
  let timer = 0;
  let before = 0;

  /** @param {Turn} turn */
  function begin(turn) {
    if (playing?.turn === turn) return playing;
    turn.shown = 0;
    playing = { turn, total: 0, credit: 0, reported: 0, began: false, cues: [] };
    before = performance.now();
    clearInterval(timer);
    timer = setInterval(tick, TICK_MS);
    return playing;
  }

  function tick() {
    if (!playing) return;
    const now = performance.now();
    const rate = languageOf(playing.turn.text) ? SYLLABLES_PER_SECOND : LETTERS_PER_SECOND;
    const step = ((now - before) / 1000) * rate;
    before = now;
    playing.credit =
      pace() === "instant" ? playing.total : Math.min(playing.total, playing.credit + step);
    show(Math.floor(playing.credit), now);
  }

  /**
   * @param {number} shown
   * @param {number} now
   */
  function show(shown, now) {
    const { turn, total, cues } = /** @type {Playing} */ (playing);
    while (cues.length && cues[0].at <= shown) onCue(cues.shift()?.cue);
    if (shown !== turn.shown) {
      turn.shown = shown;
      onShow(turn);
      tell(now, shown);
    }
    if (turn.status === "done" && shown >= total) end();
  }

  /**
   * @param {number} now
   * @param {number} shown
   */
  function tell(now, shown) {
    const current = /** @type {Playing} */ (playing);
    if (current.began && now - current.reported < REPORT_EVERY_MS) return;
    report(current.turn.key, current.began ? "progress" : "start", shown);
    current.began = true;
    current.reported = now;
  }

  function end() {
    const { turn, began } = /** @type {Playing} */ (playing);
    if (began) report(turn.key, "end", turn.shown ?? 0);
    release();
    turn.shown = null;
    onEnd(turn);
  }

  function release() {
    clearInterval(timer);
    playing = null;
  }

  return {
    begin,

    /**
     * More of a reply has come, or its end.
     * @param {Turn} turn
     */
    feed(turn) {
      begin(turn).total = length(turn.text);
      if (pace() === "instant" || turn.status === "done") tick();
    },

    /**
     * @param {Turn} turn
     * @param {number} at In code points.
     * @param {any} cue
     */
    cue(turn, at, cue) {
      const { cues } = begin(turn);
      cues.push({ at, cue });
      tick();
    },

    /**
     * Show no more of the reply that plays.
     * @returns {Turn | null} It; its `shown` says how much was heard.
     */
    stop() {
      const turn = playing?.turn ?? null;
      release();
      return turn;
    },

    /** @returns {Turn | null} */
    get turn() {
      return playing?.turn ?? null;
    },
  };
}
