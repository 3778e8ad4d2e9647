/** To whom the player speaks: a chip for everybody else who is here, and whether it is whispered. */

import { el } from "./dom.js";
import { isSeveral, nameOf, othersIn } from "./members.js";
import { languageOf } from "./text.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

/**
 * @param {object} options
 * @param {HTMLElement} options.bar
 * @param {HTMLElement} options.chips
 * @param {HTMLButtonElement} options.whisper
 * @param {HTMLElement} options.doing What other players do just now.
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(aim: {to: string[], whisper: boolean}) => void} options.onChange
 */
export function createAudience({ bar, chips, whisper, doing, i18n, onChange }) {
  /** @type {Set<string>} */
  const chosen = new Set();
  let whispers = false;
  let shown = "";

  const aim = () => ({ to: [...chosen], whisper: whispers && chosen.size > 0 });

  /** @param {string} member */
  function toggle(member) {
    if (!chosen.delete(member)) chosen.add(member);
    paint();
  }

  function paint() {
    if (!chosen.size) whispers = false;
    for (const chip of chips.children) {
      const { member = "" } = /** @type {HTMLElement} */ (chip).dataset;
      chip.setAttribute("aria-pressed", String(chosen.has(member)));
    }
    whisper.disabled = chosen.size === 0;
    whisper.setAttribute("aria-pressed", String(whispers));
    onChange(aim());
  }

  /** @param {import("./members.js").Member} member */
  const chip = ({ member, name }) =>
    el("button", {
      type: "button",
      class: "chip",
      "data-member": member,
      "aria-pressed": "false",
      text: name,
      lang: languageOf(name),
      on: { click: () => toggle(member) },
    });

  /** @param {Conversation} state */
  function tellDoing(state) {
    const busy = (/** @type {string} */ what) =>
      [...state.presence]
        .filter(([member, { online, input }]) => online && input === what && state.cast.has(member))
        .map(([member]) => nameOf(state, member))
        .join(", ");
    const [typing, speaking] = [busy("typing"), busy("speaking")];
    doing.hidden = !typing && !speaking;
    if (typing) i18n.put(doing, "isTyping", { names: typing });
    else if (speaking) i18n.put(doing, "isSpeaking", { names: speaking });
  }

  whisper.addEventListener("click", () => {
    whispers = !whispers;
    paint();
  });

  return {
    /**
     * Show who can be addressed now.
     * @param {Conversation} state
     */
    show(state) {
      bar.hidden = !isSeveral(state);
      tellDoing(state);
      const others = othersIn(state);
      const now = JSON.stringify(others.map(({ member, name }) => [member, name]));
      if (now === shown) return;
      shown = now;
      for (const member of chosen) {
        if (!others.some((other) => other.member === member)) chosen.delete(member);
      }
      chips.replaceChildren(...others.map(chip));
      paint();
    },

    toggle,

    clear() {
      chosen.clear();
      whispers = false;
      shown = "";
      chips.replaceChildren();
      doing.hidden = bar.hidden = true;
    },

    /** To whom what is said now goes. */
    get aim() {
      return aim();
    },
  };
}
