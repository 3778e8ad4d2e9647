/** The cast as the director sees it: how each NPC is, where everybody stands, who comes and goes. */

import { labelled, textButton } from "./checks.js";
import { el } from "./dom.js";
import { groupOf, moved, npcsIn } from "./members.js";
import { languageOf } from "./text.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./members.js").Member} Member */

const NOWHERE = "";

/**
 * @param {object} options
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {import("./panel.js").Run} options.run
 * @param {() => import("./chooser.js").Persona[]} options.personas
 */
export function createCastList({ i18n, run, personas }) {
  const list = el("ul", { class: "cast-list" });
  const choice = /** @type {HTMLSelectElement} */ (el("select"));
  i18n.put(choice, "bringIn", undefined, "tLabel");
  const bring = textButton("add", i18n, () => join(), "");
  let shown = "";

  async function join() {
    const persona = personas().find(({ id }) => id === choice.value);
    if (persona) await run("conversation.join", { npc: persona.id });
  }

  /**
   * @param {Conversation} state
   * @param {Member} member
   */
  function row(state, member) {
    const name = el("strong", { text: member.name, lang: languageOf(member.name) });
    if (member.member === state.me) i18n.put(name, "you");
    const parts = [el("div", { class: "cast-head" }, name, ...leaving(state, member))];
    if (member.kind === "npc") parts.push(...feelings(state, member));
    const groups = Object.keys(state.groups ?? {});
    if (groups.length) parts.push(standing(state, member, groups));
    return el("li", { "data-member": member.member }, ...parts);
  }

  /**
   * @param {Conversation} state
   * @param {Member} member
   */
  function leaving(state, { member, kind }) {
    const last = kind === "npc" && npcsIn(state).length === 1;
    if (member === state.me || last) return [];
    return [textButton("sendAway", i18n, () => run("conversation.leave", { member }))];
  }

  /**
   * @param {Conversation} state
   * @param {Member} member
   */
  function feelings(state, { member }) {
    const known = state.moods.get(member);
    const mood = /** @type {HTMLInputElement} */ (
      el("input", { type: "text", maxlength: 200, value: known?.mood ?? "" })
    );
    mood.addEventListener("change", () => run("npc.set", { member, mood: mood.value.trim() }));
    const affinity = /** @type {HTMLInputElement} */ (
      el("input", { type: "range", min: -1, max: 1, step: 0.1, value: known?.affinity ?? 0 })
    );
    affinity.addEventListener("change", () =>
      run("npc.set", { member, affinity: Number(affinity.value) }),
    );
    return [labelled("mood", mood, i18n), labelled("affinity", affinity, i18n)];
  }

  /**
   * @param {Conversation} state
   * @param {Member} member
   * @param {string[]} names
   */
  function standing(state, { member }, names) {
    const groups = state.groups ?? {};
    const own = groupOf(groups, member) ?? NOWHERE;
    const option = (/** @type {string} */ name) => el("option", { value: name, text: name });
    const nowhere = i18n.put(el("option", { value: NOWHERE }), "noGroup");
    const select = /** @type {HTMLSelectElement} */ (
      el("select", {}, ...names.map(option), nowhere)
    );
    select.value = own;
    select.addEventListener("change", async () => {
      const done = await run("scene.set", { groups: moved(groups, member, select.value || null) });
      if (!done) select.value = own;
    });
    return labelled("standsWith", select, i18n);
  }

  /** @param {Member[]} members */
  function offer(members) {
    const before = choice.value;
    const absent = personas().filter(({ id }) => !members.some(({ member }) => member === id));
    const options = absent.map(({ id, name }) => el("option", { value: id, text: name }));
    choice.replaceChildren(...options);
    if (absent.some(({ id }) => id === before)) choice.value = before;
  }

  return {
    node: el("div", { class: "stacked" }, list, el("div", { class: "bring" }, choice, bring)),

    /** @param {Conversation} state */
    show(state) {
      const members = [...state.cast.values()];
      const now = JSON.stringify([members, state.groups, [...state.moods.values()].map(setOf)]);
      if (now === shown) return;
      shown = now;
      list.replaceChildren(...members.map((member) => row(state, member)));
      offer(members);
    },
  };
}

/**
 * Of a mood, what the game sets.
 * @param {import("./members.js").Mood} mood
 */
function setOf({ member, mood, affinity }) {
  return [member, mood, affinity];
}
