/** The picture of a conversation of several: who stands with whom, who speaks, and who hears it. */

import { arrows } from "./arrows.js";
import { el } from "./dom.js";
import { draggable } from "./drag.js";
import { lookOf } from "./looks.js";
import { groupOf, isSeveral, moved } from "./members.js";
import { livePortrait } from "./portrait.js";
import { languageOf } from "./text.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./conversation.js").Turn} Turn */
/** @typedef {import("./members.js").Member} Member */
/** @typedef {{node: HTMLElement, portrait: ReturnType<typeof livePortrait>, look: string}} Head */

/** So few have room for large heads. */
const FEW = 5;
const SPOKEN = new Set(["say", "reply", "event"]);

/**
 * @param {object} options
 * @param {HTMLElement} options.picture
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(npc: string | undefined) => import("./figure.js").Look | undefined} options.look
 * @param {(member: string) => void} options.onPick
 * @param {() => boolean} options.mayMove
 * @param {(groups: Record<string, string[]>) => void} options.onMove
 */
export function createGathering({ picture, i18n, look, onPick, mayMove, onMove }) {
  /** @type {Map<string, Head>} */
  const heads = new Map();
  /** @type {Map<string, {emotion: string, intensity: number}>} */
  const felt = new Map();
  /** @type {Conversation | null} */
  let shown = null;
  let standing = "";
  let saying = "";
  const lines = arrows();
  const places = el("div", { class: "places" });
  picture.append(places, lines.node);
  new ResizeObserver(() => drawLines()).observe(picture);
  places.addEventListener("scroll", () => drawLines());

  draggable(places, {
    may: mayMove,
    onDrop(member, place) {
      if (!shown) return;
      const groups = shown.groups ?? {};
      const fresh = place.classList.contains("fresh");
      const to = fresh ? freeName(groups) : (place.dataset.group ?? null);
      if (to !== groupOf(groups, member)) onMove(moved(groups, member, to));
    },
  });

  /** @param {Record<string, string[]>} groups */
  function freeName(groups) {
    let number = 1;
    while (i18n.t("groupNumber", { number }) in groups) number += 1;
    return i18n.t("groupNumber", { number });
  }

  /**
   * @param {Conversation} state
   * @param {Member} member
   */
  function headOf(state, member) {
    const drawn = member.kind === "npc" ? look(member.npc) : undefined;
    const key = member.npc ?? member.member;
    const known = heads.get(member.member);
    if (known?.look === key) return known;
    known?.portrait.remove();
    const portrait = livePortrait(drawn ?? lookOf(member.member));
    const feeling = felt.get(member.member);
    if (feeling) portrait.feel(feeling.emotion, feeling.intensity);
    const face = el("span", { class: "face" }, portrait.node);
    face.style.setProperty("--tint", (drawn ?? lookOf(member.member)).clothes);
    const name = el("span", { class: "person-name", text: member.name, lang: languageOf(member.name) });
    const node = el(
      "button",
      { type: "button", class: "person", "data-member": member.member },
      face,
      el("span", { class: "doing", "aria-hidden": "true" }),
      name,
    );
    if (member.member === state.me) i18n.put(name, "you");
    else node.addEventListener("click", () => onPick(member.member));
    const head = { node, portrait, look: key };
    heads.set(member.member, head);
    return head;
  }

  /** @param {Conversation} state */
  function arrange(state) {
    const members = [...state.cast.values()];
    for (const [id, head] of heads) {
      if (state.cast.has(id)) continue;
      head.portrait.remove();
      heads.delete(id);
    }
    const groups = state.groups ?? {};
    const within = Object.entries(groups).map(([name, ids]) => place(state, name, inCast(state, ids)));
    const alone = members.filter(({ member }) => groupOf(groups, member) === null);
    picture.classList.toggle("few", members.length <= FEW && !within.length);
    const fresh = el("section", { class: "place fresh" }, i18n.put(el("h3"), "groupNew"));
    const rest = alone.length ? [place(state, null, alone)] : [];
    places.replaceChildren(...within, ...rest, fresh);
  }

  /**
   * @param {Conversation} state
   * @param {string | null} name
   * @param {Member[]} members
   */
  function place(state, name, members) {
    const nodes = members.map((member) => headOf(state, member).node);
    const title = name === null ? [] : [el("h3", { text: name, lang: languageOf(name) })];
    const about = name === null ? {} : { "data-group": name };
    return el("section", { class: "place", ...about }, ...title, el("div", { class: "heads" }, ...nodes));
  }

  /**
   * @param {Conversation} state
   * @param {Turn | undefined} turn
   */
  function light(state, turn) {
    for (const [id, { node }] of heads) {
      const member = state.cast.get(id);
      const presence = state.presence.get(id);
      const doing = presence?.online ? presence.input : "idle";
      const hears = !turn?.hearers || turn.hearers.includes(id);
      node.classList.toggle("speaks", turn?.speaker === id);
      node.classList.toggle("hears", Boolean(turn?.hearers) && hears);
      node.classList.toggle("deaf", !hears);
      node.classList.toggle("away", Boolean(member?.away) || presence?.online === false);
      node.dataset.doing = doing;
      const speaks = turn?.speaker === id;
      const key = speaks ? "headSpeaks" : hears ? "headHears" : "headDeaf";
      describe(node, state, id, turn?.hearers ? key : "headHere");
    }
    drawLines();
  }

  /**
   * @param {HTMLElement} node
   * @param {Conversation} state
   * @param {string} id
   * @param {string} key The label's text.
   */
  function describe(node, state, id, key) {
    const member = state.cast.get(id);
    const name = id === state.me ? i18n.t("you") : (member?.name ?? id);
    i18n.put(node, key, { name }, "tLabel");
    const mood = state.moods.get(id)?.mood;
    if (mood) node.title = mood;
    else node.removeAttribute("title");
  }

  function drawLines() {
    const turn = shown && newestOf(shown);
    const from = turn ? heads.get(turn.speaker)?.node : undefined;
    const to = (turn?.to ?? []).flatMap((id) => heads.get(id)?.node ?? []);
    lines.draw(picture, from, to, { whisper: Boolean(turn?.whisper) });
  }

  return {
    /**
     * Show a conversation as it is now.
     * @param {Conversation} state
     */
    show(state) {
      shown = state;
      picture.hidden = !isSeveral(state);
      if (picture.hidden) return;
      const now = JSON.stringify([[...state.cast.values()], state.groups]);
      if (now !== standing) arrange(state);
      const turn = newestOf(state);
      const said = JSON.stringify([turn?.key, turn?.to, turn?.hearers, [...state.presence], [...state.moods]]);
      if (now !== standing || said !== saying) light(state, turn);
      standing = now;
      saying = said;
    },

    /**
     * @param {string} member
     * @param {{emotion: string, intensity: number, gesture?: string}} feeling
     */
    feel(member, { emotion, intensity, gesture }) {
      felt.set(member, { emotion, intensity });
      const portrait = heads.get(member)?.portrait;
      portrait?.feel(emotion, intensity);
      if (gesture) portrait?.gesture(gesture);
    },

    /** @param {string} member */
    talk: (member) => heads.get(member)?.portrait.talk(),

    /** @param {string[]} members Those whom the player addresses. */
    mark(members) {
      for (const [id, { node }] of heads) node.classList.toggle("aimed", members.includes(id));
    },

    /** Nobody is here any more. */
    clear() {
      for (const { portrait } of heads.values()) portrait.remove();
      heads.clear();
      felt.clear();
      places.replaceChildren();
      shown = null;
      standing = saying = "";
    },
  };
}

/**
 * The newest thing that was said or that happened.
 * @param {Conversation} state
 */
function newestOf(state) {
  return state.turns.findLast((turn) => SPOKEN.has(turn.kind) && !turn.replaced);
}

/**
 * @param {Conversation} state
 * @param {string[]} ids
 */
function inCast(state, ids) {
  return ids.flatMap((id) => state.cast.get(id) ?? []);
}
