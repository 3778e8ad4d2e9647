/** One conversation over the client: opening and reopening, saying, interrupting, playing replies. */

import { addPending, apply, createConversation, findTurn, prepend } from "./conversation.js";
import { mayCut } from "./members.js";
import { createPlayback } from "./playback.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./conversation.js").Deed} Deed */
/** @typedef {(turn: Turn, deed: Deed, ok: boolean, reason?: string) => void} OnAct */

const HISTORY_PAGE = 50;
const REOPEN_AFTER_MS = 1_000;

/**
 * What the page shows of a conversation.
 * @typedef {object} Screen
 * @property {(state: Conversation, turns: Turn[], plays: (turn: Turn) => boolean) => void} show
 * @property {(state: Conversation, turns: Turn[]) => void} showBefore
 * @property {(state: Conversation) => void} opened
 * @property {(state: Conversation) => void} restart All turns are to be shown anew.
 * @property {(state: Conversation) => void} changed Something else of it is another now: who is
 *   there, where they stand, how they feel, what they do, which turn is the newest.
 * @property {(text: string) => void} sentence
 * @property {(member: string, feeling: {emotion: string, intensity: number, gesture?: string}) => void} feel
 * @property {(member: string) => void} talk The words of a member appear.
 * @property {(speaking: boolean) => void} speaking
 * @property {(message: string) => void} problem
 * @property {() => void} closed It was closed elsewhere; saying something opens it again.
 * @property {(message?: string) => void} gone It cannot be opened; the message says why a new one
 *   cannot.
 */

/**
 * What a new conversation is made of: NPCs or a scene. Or with what another's is entered.
 * @typedef {{npcs?: string[], scene?: string, invite?: string}} Choice
 */

/**
 * @param {object} options
 * @param {ReturnType<typeof import("./client.js").createClient>} options.client
 * @param {string} options.me The player's id.
 * @param {() => "instant" | "spoken"} options.pace
 * @param {Screen} options.screen
 */
export function createTalk({ client, me, pace, screen }) {
  /** @type {Conversation | null} */
  let state = null;
  /** @type {Choice} */
  let choice = {};
  let opening = "";
  let isOpen = false;
  let isClosed = false;
  let asked = "";
  let timer = 0;

  const playback = createPlayback({
    pace,
    onShow(turn) {
      screen.talk(turn.speaker);
      paint([turn]);
    },
    onCue: ({ speaker, ...feeling }) => screen.feel(speaker, feeling),
    onEnd(turn) {
      paint([turn]);
      update();
    },
    report(turn, playState, heard) {
      if (!state) return;
      const fields = { conversation: state.id, turn, state: playState, heard_chars: heard };
      client.signal("playback", { ...fields, at_ms: Math.round(performance.now()) });
    },
  });

  /** @param {Turn[]} turns */
  function paint(turns) {
    if (state && turns.length) screen.show(state, turns, playback.has);
  }

  function update() {
    screen.speaking(playback.turns.some(isMineToCut));
    if (state) screen.changed(state);
  }

  /** @param {Turn} turn */
  const isMineToCut = (turn) => state !== null && mayCut(state, turn);

  function sendOpen() {
    if (!state) return;
    const since = state.seq || undefined;
    const fresh = since ? {} : choice;
    opening = client.send("conversation.open", { conversation: state.id, since, ...fresh });
  }

  /** Say again what was not confirmed: the same ids, so that nothing is said twice. */
  function resend() {
    for (const turn of state?.turns ?? []) {
      if (turn.status === "pending") transmit(turn);
    }
  }

  /** @param {Turn} turn Of the player; it waits where the conversation is not open now. */
  function transmit(turn) {
    if (isClosed) sendOpen();
    if (!isOpen) return;
    const { to = [], whisper } = turn.aim ?? {};
    const aim = { to: to.length ? to : undefined, whisper: whisper || undefined };
    client.send("say", { conversation: state?.id, text: turn.text, ...aim }, turn.command);
  }

  /** @param {any} event */
  function opened(event) {
    const current = /** @type {Conversation} */ (state);
    const before = current.turns;
    const changed = apply(current, event);
    isOpen = true;
    isClosed = false;
    if (before !== current.turns) screen.restart(current);
    screen.opened(current);
    paint(changed);
    feelAll(current);
    resend();
    update();
  }

  /** @param {Conversation} current */
  function feelAll(current) {
    for (const { member, emotion } of current.moods.values()) {
      screen.feel(member, { emotion, intensity: 0.5 });
    }
  }

  /** @param {any} event */
  function refused(event) {
    if (event.retryable) {
      timer = setTimeout(sendOpen, event.retry_after_ms ?? REOPEN_AFTER_MS);
      screen.problem(event.message);
    } else screen.gone(Object.keys(choice).length && !state?.seq ? event.message : undefined);
  }

  /** @param {any} event */
  function live(event) {
    const current = /** @type {Conversation} */ (state);
    if (event.type === "reply.emotion") {
      const turn = findTurn(current, event.turn);
      if (turn && turn.shown === null && turn.status !== "done") playback.begin(turn);
      if (turn && playback.has(turn)) {
        playback.cue(turn, event.at_char, { ...event, speaker: turn.speaker });
      }
      return;
    }
    const before = current.turns;
    const turns = apply(current, event);
    if (before !== current.turns) reset(current);
    if (event.type === "error" && !turns.length) screen.problem(event.message);
    if (event.type === "reply.sentence" && playback.turns.some(({ key }) => key === event.turn)) {
      screen.sentence(event.text);
    }
    if (event.type === "conversation.closed") {
      isOpen = false;
      isClosed = true;
      screen.closed();
    }
    for (const turn of turns) play(turn, event);
    paint(turns);
    update();
  }

  /** @param {Conversation} current It went back: nothing of what came later is shown any more. */
  function reset(current) {
    playback.stop();
    screen.restart(current);
    screen.opened(current);
    feelAll(current);
  }

  /**
   * @param {Turn} turn
   * @param {any} event
   */
  function play(turn, event) {
    if (turn.replaced) return;
    if (event.type === "reply.started" && turn.shown === null) playback.begin(turn);
    const comes = ["reply.delta", "reply.snapshot", "reply.done"].includes(event.type);
    if (comes && (turn.shown === null || playback.has(turn))) playback.feed(turn);
    if (event.type === "reply.heard") playback.stop((playing) => playing === turn);
  }

  /**
   * Tell how far a reply was heard that is cut now.
   * @param {Turn} turn
   */
  function tellHeard(turn) {
    const fields = { conversation: state?.id, turn: turn.key, heard_chars: turn.shown ?? 0 };
    client.signal("playback", { ...fields, state: "progress" });
  }

  return {
    /**
     * Enter a conversation, new or known.
     * @param {string} id
     * @param {Choice} [chosen] What a new one is made of.
     */
    enter(id, chosen = {}) {
      this.leave();
      state = createConversation(id, me);
      choice = chosen;
      screen.restart(state);
      if (client.online) sendOpen();
    },

    /** Leave it; it is kept and can be entered again. */
    leave() {
      clearTimeout(timer);
      playback.stop();
      if (state && isOpen) client.send("conversation.close", { conversation: state.id });
      state = null;
      isOpen = false;
      isClosed = false;
      update();
    },

    /** The connection is there again. */
    online() {
      if (state) sendOpen();
    },

    /** The connection is lost. What was shown of a reply stays until the server says how it ended. */
    offline() {
      clearTimeout(timer);
      isOpen = false;
      playback.stop();
      const cut = state?.turns.filter((turn) => turn.shown !== null) ?? [];
      for (const turn of cut) turn.shown = null;
      paint(cut);
      update();
    },

    /** @param {any} event */
    take(event) {
      if (event.re && event.re === opening && event.type === "error") refused(event);
      else if (event.type === "error" && !event.conversation && !state) screen.problem(event.message);
      else if (!state) return;
      else if (event.conversation && event.conversation !== state.id) return;
      else if (event.type === "conversation.opened") opened(event);
      else if (event.type === "history" && event.re === asked) {
        screen.showBefore(state, prepend(state, event));
        screen.opened(state);
      } else live(event);
    },

    /**
     * The player says something; what plays is cut where it is, unless it is still being said to
     * another player.
     * @param {string} text
     * @param {{to: string[], whisper: boolean}} aim Without addressees the words tell who is meant.
     * @returns {boolean} Whether it was taken.
     */
    say(text, aim) {
      if (!state) return false;
      const cut = playback.stop((turn) => turn.status === "done" || isMineToCut(turn));
      cut.forEach(tellHeard);
      paint(cut);
      const turn = addPending(state, client.newId(), text, aim);
      paint([turn]);
      transmit(turn);
      update();
      return true;
    },

    /**
     * Say again what was refused.
     * @param {Turn} turn
     */
    sayAgain(turn) {
      if (!turn.retryable) turn.key = turn.command = client.newId();
      turn.status = "pending";
      turn.error = undefined;
      paint([turn]);
      transmit(turn);
    },

    /**
     * Tell what became of what the NPC did.
     * @type {OnAct}
     */
    act(turn, deed, ok, reason) {
      if (!state || !isOpen) return;
      deed.sent = true;
      client.send("action.result", { conversation: state.id, call: deed.call, ok, reason });
      paint([turn]);
    },

    /** Cut what is being spoken, or still plays. */
    interrupt() {
      if (!state) return;
      const playing = playback.stop(isMineToCut);
      const live = findTurn(state, state.live ?? undefined);
      const cut = !playing.length && live && isMineToCut(live) ? [live] : playing;
      for (const turn of cut) {
        turn.shown ??= 0;
        const fields = { conversation: state.id, turn: turn.key, heard_chars: turn.shown };
        client.send("interrupt", fields);
      }
      paint(cut);
      update();
    },

    /**
     * Have the newest reply said anew.
     * @param {Turn} turn
     */
    anew(turn) {
      if (state) client.send("regenerate", { conversation: state.id, turn: turn.key });
    },

    /** @param {"typing" | "idle"} input */
    input(input) {
      if (state && isOpen) client.signal("input", { conversation: state.id, state: input });
    },

    /** Ask for older turns. */
    earlier() {
      if (!state) return;
      const before = state.turns.find((turn) => turn.status === "done")?.key;
      asked = client.send("history.get", { conversation: state.id, before, limit: HISTORY_PAGE });
    },

    get state() {
      return state;
    },
  };
}
