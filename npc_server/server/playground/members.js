/** Who is in a conversation, who stands with whom, and who can hear whom. */

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {{member: string, kind: "player" | "npc", name: string, npc?: string, away?: boolean}} Member */
/** @typedef {{member: string, emotion: string, affinity: number, mood?: string}} Mood */
/** @typedef {{online: boolean, input: "typing" | "speaking" | "idle"}} Presence */

/**
 * The others who are here, in order of arrival.
 * @param {Conversation} state
 * @returns {Member[]}
 */
export function othersIn(state) {
  return [...state.cast.values()].filter(({ member, away }) => member !== state.me && !away);
}

/**
 * The NPCs who are here.
 * @param {Conversation} state
 * @returns {Member[]}
 */
export function npcsIn(state) {
  return [...state.cast.values()].filter(({ kind }) => kind === "npc");
}

/**
 * Whether there is more to it than one player and one NPC.
 * @param {Conversation} state
 */
export function isSeveral(state) {
  return state.cast.size > 2 || Object.keys(state.groups ?? {}).length > 0;
}

/**
 * What somebody is called.
 * @param {Conversation} state
 * @param {string} member
 */
export function nameOf(state, member) {
  return state.cast.get(member)?.name ?? member;
}

/**
 * The group in which a member stands; null outside of all of them.
 * @param {Record<string, string[]>} groups
 * @param {string} member
 */
export function groupOf(groups, member) {
  return Object.keys(groups).find((name) => groups[name].includes(member)) ?? null;
}

/**
 * The groups after somebody has moved.
 * @param {Record<string, string[]>} groups
 * @param {string} member
 * @param {string | null} to A group, perhaps a new one; null is outside of all of them.
 * @returns {Record<string, string[]>}
 */
export function moved(groups, member, to) {
  const left = Object.entries(groups).map(([name, members]) => [
    name,
    members.filter((other) => other !== member),
  ]);
  const after = Object.fromEntries(left);
  if (to !== null) after[to] = [...(after[to] ?? []), member];
  return after;
}

/**
 * Whether only those to whom something is said hear it, although others stand by.
 * @param {Conversation} state As it was then.
 * @param {{speaker: string, to: string[], hearers: string[]}} said
 */
export function whispered(state, { speaker, to, hearers }) {
  const { groups } = state;
  if (!to.length || !groups) return false;
  if (hearers.some((member) => member !== speaker && !to.includes(member))) return false;
  const own = groupOf(groups, speaker);
  return [...state.cast.values()].some(
    ({ member, away }) =>
      !away && !hearers.includes(member) && groupOf(groups, member) === own,
  );
}

/**
 * Whether a player who speaks now cuts a reply: it is not if it is for other players only.
 * @param {Conversation} state
 * @param {Turn} reply
 */
export function mayCut(state, { to }) {
  const players = to.filter((member) => state.cast.get(member)?.kind === "player");
  return !players.length || players.includes(state.me);
}

/**
 * The cast as it was before some events.
 * @param {any[]} events
 * @param {Member[]} now The cast after them.
 * @returns {Member[]}
 */
export function castBefore(events, now) {
  const first = events.find(({ type }) => type === "cast.changed");
  if (!first) return now;
  const others = first.cast.filter((/** @type {Member} */ m) => m.member !== first.member.member);
  return first.change === "left" ? [...others, { ...first.member, away: undefined }] : others;
}

/** @type {Record<string, (state: Conversation, event: any) => Turn | undefined>} */
export const MEMBER_HANDLERS = {
  "cast.changed"(state, { seq, change, member, cast }) {
    state.cast = new Map(cast.map((/** @type {Member} */ each) => [each.member, each]));
    if (change === "left") state.presence.delete(member.member);
    if (member.member === state.me) return undefined;
    /** @type {Turn} */
    const note = {
      key: `cast-${seq}`,
      kind: "cast",
      speaker: member.member,
      name: member.name,
      to: [],
      hearers: null,
      whisper: false,
      text: change,
      status: "done",
      heard: null,
      shown: null,
    };
    state.turns.push(note);
    return note;
  },

  "scene.changed"(state, { scene, groups }) {
    state.scene = scene ?? null;
    state.groups = groups;
    return undefined;
  },

  "player.presence"(state, { member, online, input }) {
    state.presence.set(member, { online, input });
    return undefined;
  },

  "npc.state"(state, { member, emotion, affinity, mood }) {
    state.moods.set(member, { member, emotion, affinity, mood });
    return undefined;
  },
};
