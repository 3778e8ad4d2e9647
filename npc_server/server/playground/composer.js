/** Where the player writes: Enter says it, Shift+Enter makes a new line, a composition is left alone. */

import { length } from "./text.js";

const TYPING_EVERY_MS = 2_000;
const TYPED_NO_MORE_AFTER_MS = 5_000;
const WARN_BELOW = 200;
const COMPOSITION_KEY = 229;

/**
 * @param {object} options
 * @param {HTMLFormElement} options.form
 * @param {HTMLTextAreaElement} options.field
 * @param {HTMLElement} options.counter
 * @param {HTMLButtonElement} options.send
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {(text: string) => boolean} options.onSay Whether it was taken.
 * @param {(state: "typing" | "idle") => void} options.onInput
 */
export function createComposer({ form, field, counter, send, i18n, onSay, onInput }) {
  let limit = 4_000;
  let typedAt = 0;
  let typing = false;
  let pause = 0;

  function submit() {
    const text = field.value.trim();
    if (!text || length(text) > limit || !onSay(text)) return;
    field.value = "";
    clearTimeout(pause);
    typing = false;
    typedAt = 0;
    changed();
  }

  function changed() {
    const left = limit - length(field.value.trim());
    counter.hidden = left >= WARN_BELOW;
    counter.classList.toggle("problem", left < 0);
    if (!counter.hidden) {
      i18n.put(counter, left < 0 ? "tooLong" : "left", { count: Math.abs(left) });
    }
    send.disabled = !field.value.trim() || left < 0;
    grow();
  }

  function grow() {
    if (CSS.supports("field-sizing", "content")) return;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight + 2}px`;
  }

  function tellTyping() {
    const now = performance.now();
    clearTimeout(pause);
    pause = setTimeout(typedNoMore, TYPED_NO_MORE_AFTER_MS);
    if (!field.value.trim()) typedNoMore();
    else if (!typing || now - typedAt > TYPING_EVERY_MS) {
      typing = true;
      typedAt = now;
      onInput("typing");
    }
  }

  /** The field is empty, or nothing more was typed for a while. */
  function typedNoMore() {
    clearTimeout(pause);
    if (typing) onInput("idle");
    typing = false;
    typedAt = 0;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
    field.focus();
  });
  field.addEventListener("input", () => {
    changed();
    tellTyping();
  });
  field.addEventListener("keydown", (event) => {
    // Safari ends a composition before this event, and then only the old key code tells.
    if (event.isComposing || event.keyCode === COMPOSITION_KEY) return;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey) {
      event.preventDefault();
      submit();
    }
  });
  changed();

  return {
    focus: () => field.focus({ preventScroll: true }),

    /** @param {number} characters The longest text that the server takes, in code points. */
    setLimit(characters) {
      limit = characters;
      changed();
    },

    /** @param {string} text */
    restore(text) {
      if (!field.value) field.value = text;
      changed();
    },
  };
}
