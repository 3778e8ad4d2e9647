/** Brings replies onto the screen, at once or at the pace of speech, and tells the server how far. */

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
 * Replies play one after another: what comes while one is still playing waits for its end.
 * @param {object} options
 * @param {() => "instant" | "spoken"} options.pace
 * @param {(turn: Turn) => void} options.onShow More of it is on the screen.
 * @param {(cue: any) => void} options.onCue An expression's or a gesture's place was reached.
 * @param {(turn: Turn) => void} options.onEnd All of it was shown.
 * @param {(turn: string, state: "start" | "progress" | "end", heard: number) => void} options.report
 */
export function createPlayback({ pace, onShow, onCue, onEnd, report }) {
  /** @type {Playing[]} */
  let queue = [];
  let timer = 0;
  let before = 0;

  /** @param {Turn} turn */
  function begin(turn) {
    const known = queue.find((playing) => playing.turn === turn);
    if (known) return known;
    turn.shown = 0;
    const playing = { turn, total: 0, credit: 0, reported: 0, began: false, cues: [] };
    queue.push(playing);
    if (queue.length === 1) run();
    return playing;
  }

  function run() {
    before = performance.now();
    clearInterval(timer);
    if (queue.length) timer = setInterval(tick, TICK_MS);
  }

  function tick() {
    const [playing] = queue;
    if (!playing) return;
    const now = performance.now();
    const rate = languageOf(playing.turn.text) ? SYLLABLES_PER_SECOND : LETTERS_PER_SECOND;
    const step = ((now - before) / 1000) * rate;
    before = now;
    playing.credit =
      pace() === "instant" ? playing.total : Math.min(playing.total, playing.credit + step);
    show(playing, Math.floor(playing.credit), now);
  }

  /**
   * @param {Playing} playing
   * @param {number} shown
   * @param {number} now
   */
  function show(playing, shown, now) {
    const { turn, total, cues } = playing;
    while (cues.length && cues[0].at <= shown) onCue(cues.shift()?.cue);
    if (shown !== turn.shown) {
      turn.shown = shown;
      onShow(turn);
      tell(playing, now, shown);
    }
    if (turn.status === "done" && shown >= total) end(playing);
  }

  /**
   * @param {Playing} playing
   * @param {number} now
   * @param {number} shown
   */
  function tell(playing, now, shown) {
    if (playing.began && now - playing.reported < REPORT_EVERY_MS) return;
    report(playing.turn.key, playing.began ? "progress" : "start", shown);
    playing.began = true;
    playing.reported = now;
  }

  /** @param {Playing} playing */
  function end({ turn, began }) {
    if (began) report(turn.key, "end", turn.shown ?? 0);
    queue.shift();
    run();
    turn.shown = null;
    onEnd(turn);
    tick();
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
     * Show no more of these replies.
     * @param {(turn: Turn) => boolean} [which] By default all.
     * @returns {Turn[]} Those that were cut; their `shown` says how much was heard.
     */
    stop(which = () => true) {
      const cut = queue.map(({ turn }) => turn).filter(which);
      if (!cut.length) return cut;
      queue = queue.filter(({ turn }) => !cut.includes(turn));
      run();
      return cut;
    },

    /**
     * Whether a reply plays, or waits to.
     * @param {Turn} turn
     */
    has: (turn) => queue.some((playing) => playing.turn === turn),

    /** @returns {Turn[]} What plays and what waits, in order. */
    get turns() {
      return queue.map(({ turn }) => turn);
    },
  };
}
