/** What is known of a conversation, built from events alone: the same live and after a reload. */

/**
 * @typedef {object} Turn
 * @property {string} key The turn's id; while it is on its way, the command's.
 * @property {"say" | "event" | "reply" | "silent"} kind
 * @property {string} speaker A member's id.
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
 * @property {Map<string, {member: string, kind: string, name: string, npc?: string}>} cast
 * @property {Map<string, string>} moods By member.
 * @property {Turn[]} turns
 * @property {boolean} earlier Whether older turns can be asked for.
 * @property {string | null} live The reply in flight.
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
    turns: [],
    earlier: false,
    live: null,
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
 * The NPC one talks with.
 * @param {Conversation} state
 */
export function npcOf(state) {
  return [...state.cast.values()].find((member) => member.kind === "npc");
}

/**
 * The player says something that the server has not confirmed yet.
 * @param {Conversation} state
 * @param {string} command The command's id.
 * @param {string} text
 * @returns {Turn}
 */
export function addPending(state, command, text) {
  return add(state, {
    key: command,
    kind: "say",
    speaker: state.me,
    text,
    status: "pending",
    command,
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
    .map((/** @type {any} */ { turn, kind, speaker, text, cut, actions: deeds }) =>
      complete({ key: turn, kind, speaker, text, cut, deeds, status: "done" }),
    );
  state.turns.unshift(...older);
  return older;
}

/**
 * @param {Conversation} state
 * @param {any} event
 */
function open(state, event) {
  const gap = event.limited && state.turns.length > 0;
  if (gap) state.turns = state.turns.filter((turn) => turn.status === "pending");
  if (event.limited) state.earlier = true;
  for (const member of event.cast) state.cast.set(member.member, member);
  const changed = event.tail
    .filter((/** @type {any} */ old) => old.type !== "conversation.opened")
    .flatMap((/** @type {any} */ old) => apply(state, old));
  for (const mood of event.state) state.moods.set(mood.member, mood.emotion);
  if (event.seq !== undefined) state.seq = Math.max(state.seq, event.seq);
  state.live = event.reply ?? null;
  return gap ? state.turns : changed;
}

/** @type {Record<string, (state: Conversation, event: any) => Turn | undefined>} */
const HANDLERS = {
  ack(state, event) {
    const turn = findTurn(state, event.re);
    if (turn && event.turn) confirm(turn, event.turn);
    return turn;
  },

  turn(state, event) {
    const known = findTurn(state, event.turn) ?? findTurn(state, event.re);
    if (known) {
      confirm(known, event.turn);
      known.text = event.text;
      return known;
    }
    const { turn, kind, speaker, text, re } = event;
    return add(state, { key: turn, kind, speaker, text, status: "done", command: re });
  },

  "reply.started"(state, event) {
    const { turn, attempt, speaker, queue_position: queue, answers } = event;
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

  "npc.state"(state, event) {
    state.moods.set(event.member, event.emotion);
    return undefined;
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
  const speaker = npcOf(state)?.member ?? "";
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
  return { heard: null, shown: null, ...fields };
}
