/** What is known of a conversation, built from events alone: the same live and after a reload. */

import { grown } from "./branches.js";
import { MEMBER_HANDLERS, castBefore, npcsIn, whispered } from "./members.js";

/** So many turns does `conversation.reset` bring at most; with fewer there are no older ones. */
const TAIL = 50;

/**
 * @typedef {object} Turn
 * @property {string} key The turn's id; while it is on its way, the command's.
 * @property {"say" | "event" | "reply" | "silent" | "cast"} kind
 * @property {string} speaker A member's id.
 * @property {string[]} to Member ids of the addressees; empty while they are not known.
 * @property {string[] | null} hearers Who perceived it; null where that is not told.
 * @property {boolean} whisper Whether others who are near did not hear it.
 * @property {string} text All that was sent of it.
 * @property {"pending" | "failed" | "waiting" | "speaking" | "done"} status
 * @property {number | null} heard Of a cut reply, how many code points were heard.
 * @property {number | null} shown While it plays or was just cut here, how many are on the screen.
 * @property {number} [attempt]
 * @property {number} [queue] How many replies come before it.
 * @property {string} [finish]
 * @property {{prompt: number, cached: number, completion: number}} [usage]
 * @property {{queue_ms: number, first_token_ms?: number, total_ms: number}} [timings]
 * @property {string} [degraded]
 * @property {string} [error]
 * @property {boolean} [retryable]
 * @property {string} [answers] Of a reply, the turn that it answers.
 * @property {boolean} [replaced] It was said anew, and is no part of the conversation any more.
 * @property {string} [command] Of the player's turn, the id of the command that made it.
 * @property {Deed[]} [deeds] Of a reply, what the NPC did with it.
 * @property {boolean} [cut] From `history`: the text is what was heard, and there was more.
 * @property {{to: string[], whisper: boolean}} [aim] Of the player's turn, to whom it was aimed.
 * @property {boolean} [redacted] Its words were taken out.
 * @property {string} [name] Of somebody who came or went, the name.
 */

/**
 * Something that an NPC does in the game.
 * @typedef {object} Deed
 * @property {string} call
 * @property {string} name
 * @property {Record<string, any>} args
 * @property {boolean} confirm Whether the NPC waits for the game.
 * @property {boolean} [execute] Whether this page is to do it.
 * @property {boolean} [ok] What the game told; missing while it has not.
 * @property {string} [reason] Why it was refused.
 * @property {boolean} [sent] Whether this page has answered.
 */

/**
 * @typedef {object} Conversation
 * @property {string} id
 * @property {string} me The player's member id.
 * @property {number} seq The newest that was applied.
 * @property {Map<string, import("./members.js").Member>} cast
 * @property {Map<string, import("./members.js").Mood>} moods By member.
 * @property {Map<string, import("./members.js").Presence>} presence Of the other players.
 * @property {string | null} scene The scene's id.
 * @property {Record<string, string[]> | null} groups Members by group; null while they are not known.
 * @property {Turn[]} turns
 * @property {boolean} earlier Whether older turns can be asked for.
 * @property {string | null} live The reply in flight.
 * @property {string | null} invite With it others may come in.
 * @property {string | null} branch The branch that goes on.
 * @property {import("./branches.js").Branch[]} branches All of them, as far as the page saw them.
 */

/**
 * @param {string} id
 * @param {string} me
 * @returns {Conversation}
 */
export function createConversation(id, me) {
  return {
    id,
    me,
    seq: 0,
    cast: new Map(),
    moods: new Map(),
    presence: new Map(),
    scene: null,
    groups: null,
    turns: [],
    earlier: false,
    live: null,
    invite: null,
    branch: null,
    branches: [],
  };
}

/**
 * @param {Conversation} state
 * @param {string | undefined} key
 * @returns {Turn | undefined}
 */
export function findTurn(state, key) {
  return key === undefined ? undefined : state.turns.findLast((turn) => turn.key === key);
}

/**
 * The player says something that the server has not confirmed yet.
 * @param {Conversation} state
 * @param {string} command The command's id.
 * @param {string} text
 * @param {{to: string[], whisper: boolean}} aim
 * @returns {Turn}
 */
export function addPending(state, command, text, aim) {
  return add(state, {
    key: command,
    kind: "say",
    speaker: state.me,
    to: aim.to,
    whisper: aim.whisper,
    text,
    status: "pending",
    command,
    aim,
  });
}

/**
 * Take in an event.
 * @param {Conversation} state Is changed.
 * @param {any} event
 * @returns {Turn[]} The turns that it changed or made.
 */
export function apply(state, event) {
  if (event.type === "conversation.opened") return open(state, event);
  if (event.seq !== undefined) {
    if (event.seq <= state.seq) return [];
    state.seq = event.seq;
  }
  const turn = HANDLERS[event.type]?.(state, event);
  const replaced = findTurn(state, event.replaces);
  if (replaced) replaced.replaced = true;
  return [replaced, turn].flatMap((changed) => changed ?? []);
}

/**
 * Older turns, as `history` tells them.
 * @param {Conversation} state
 * @param {any} event
 * @returns {Turn[]} The new ones, oldest first.
 */
export function prepend(state, event) {
  state.earlier = event.more;
  const known = new Set(state.turns.map((turn) => turn.key));
  const older = event.turns
    .filter((/** @type {any} */ turn) => !known.has(turn.turn))
    .map(past);
  state.turns.unshift(...older);
  return older;
}

/**
 * A turn as `history` tells it.
 * @param {any} told
 * @returns {Turn}
 */
function past({ turn, kind, speaker, to, text, cut, actions: deeds, redacted }) {
  return complete({ key: turn, kind, speaker, to, text, cut, deeds, redacted, status: "done" });
}

/**
 * @param {Conversation} state
 * @param {any} event
 */
function open(state, event) {
  const gap = event.limited && state.turns.length > 0;
  if (gap) state.turns = state.turns.filter((turn) => turn.status === "pending");
  if (event.limited) state.earlier = true;
  setBack(state, event);
  const changed = event.tail
    .filter((/** @type {any} */ old) => old.type !== "conversation.opened")
    .flatMap((/** @type {any} */ old) => apply(state, old));
  state.cast = byMember(event.cast);
  state.moods = byMember(event.state);
  state.scene = event.scene?.scene ?? null;
  state.groups = event.scene?.groups ?? {};
  state.invite = event.invite ?? null;
  state.branch = event.branch ?? null;
  if (event.seq !== undefined) state.seq = Math.max(state.seq, event.seq);
  state.live = event.reply ?? null;
  const standing = new Set(state.turns);
  return gap ? state.turns : changed.filter((/** @type {Turn} */ turn) => standing.has(turn));
}

/**
 * Go back to who was there, and where, before the events of a tail.
 * @param {Conversation} state
 * @param {any} event
 */
function setBack(state, event) {
  const { tail, scene } = event;
  state.cast = byMember(castBefore(tail, event.cast));
  const moved = tail.some((/** @type {any} */ old) => old.type === "scene.changed");
  if (!moved) state.groups = scene?.groups ?? {};
}

/**
 * @template {{member: string}} M
 * @param {M[]} members
 * @returns {Map<string, M>}
 */
const byMember = (members) => new Map(members.map((each) => [each.member, each]));

/** @type {Record<string, (state: Conversation, event: any) => Turn | undefined>} */
const HANDLERS = {
  ...MEMBER_HANDLERS,

  ack(state, event) {
    const turn = findTurn(state, event.re);
    if (turn && event.turn) confirm(turn, event.turn);
    return turn;
  },

  turn(state, event) {
    const { turn, kind, speaker, to, hearers, text, re } = event;
    const audience = { to, hearers, whisper: kind === "say" && whispered(state, event) };
    const known = findTurn(state, turn) ?? findTurn(state, re);
    if (known) {
      confirm(known, turn);
      return Object.assign(known, { text, ...audience });
    }
    return add(state, { key: turn, kind, speaker, text, ...audience, status: "done", command: re });
  },

  "reply.started"(state, event) {
    const { turn, attempt, speaker, to, hearers, queue_position: queue, answers } = event;
    state.live = turn;
    const known = findTurn(state, turn);
    if (known) {
      if (attempt > (known.attempt ?? 0)) Object.assign(known, { attempt, text: "" });
      return known;
    }
    return add(state, {
      key: turn,
      kind: "reply",
      speaker,
      to,
      hearers,
      whisper: whispered(state, event),
      text: "",
      status: "waiting",
      attempt,
      queue,
      answers,
    });
  },

  "reply.delta"(state, event) {
    const turn = reply(state, event.turn);
    turn.text += event.text;
    turn.status = "speaking";
    return turn;
  },

  "reply.action"(state, event) {
    const turn = reply(state, event.turn);
    const { call, name, args, confirm, execute } = event;
    const known = turn.deeds?.find((deed) => deed.call === call);
    if (known) known.execute ||= execute;
    else turn.deeds = [...(turn.deeds ?? []), { call, name, args, confirm, execute }];
    return turn;
  },

  "action.settled"(state, event) {
    const turn = findTurn(state, event.turn);
    const deed = turn?.deeds?.find((known) => known.call === event.call);
    if (deed) Object.assign(deed, { ok: event.ok, reason: event.reason });
    return turn;
  },

  "reply.snapshot"(state, event) {
    const turn = reply(state, event.turn);
    turn.text = event.text;
    if (event.text) turn.status = "speaking";
    return turn;
  },

  "reply.done"(state, event) {
    const turn = reply(state, event.turn);
    const { text, finish, usage, timings, degraded } = event;
    Object.assign(turn, { text, finish, usage, timings, degraded, status: "done" });
    if (state.live === turn.key) state.live = null;
    return turn;
  },

  "reply.heard"(state, event) {
    const turn = findTurn(state, event.turn);
    if (!turn || event.member !== state.me) return undefined;
    turn.heard = event.heard;
    return turn;
  },

  "reply.silent"(state, event) {
    const key = `silent-${event.seq}`;
    return add(state, {
      key,
      kind: "silent",
      speaker: event.speaker,
      text: event.reason,
      status: "done",
    });
  },

  "conversation.reset"(state, event) {
    const waiting = state.turns.filter((turn) => turn.status === "pending");
    state.branches = grown(state, event);
    state.branch = event.branch;
    state.cast = byMember(event.cast);
    state.moods = byMember(event.state);
    state.turns = [...event.tail.map(past), ...waiting];
    state.earlier = event.tail.length >= TAIL;
    state.live = null;
    return undefined;
  },

  "turn.redacted"(state, event) {
    const turn = findTurn(state, event.turn);
    return turn && Object.assign(turn, { text: "", heard: null, deeds: [], redacted: true });
  },

  error(state, event) {
    const said = event.re && state.turns.findLast((turn) => turn.command === event.re);
    if (!said) return undefined;
    if (said.status === "pending") {
      const { message: error, retryable } = event;
      return Object.assign(said, { status: "failed", error, retryable });
    }
    const answer = state.turns.findLast((turn) => turn.answers === said.key);
    if (answer) answer.error = event.message;
    return answer;
  },
};

/**
 * @param {Turn} turn
 * @param {string} key
 */
function confirm(turn, key) {
  turn.key = key;
  turn.status = "done";
  turn.error = undefined;
}

/**
 * @param {Conversation} state
 * @param {string} key
 */
function reply(state, key) {
  const known = findTurn(state, key);
  if (known) return known;
  const speaker = npcsIn(state)[0]?.member ?? "";
  return add(state, { key, kind: "reply", speaker, text: "", status: "speaking" });
}

/**
 * @param {Conversation} state
 * @param {Pick<Turn, "key" | "kind" | "speaker" | "text" | "status"> & Partial<Turn>} fields
 */
function add(state, fields) {
  const turn = complete(fields);
  state.turns.push(turn);
  return turn;
}

/**
 * @param {Pick<Turn, "key" | "kind" | "speaker" | "text" | "status"> & Partial<Turn>} fields
 * @returns {Turn}
 */
function complete(fields) {
  return { heard: null, shown: null, to: [], hearers: null, whisper: false, ...fields };
}
