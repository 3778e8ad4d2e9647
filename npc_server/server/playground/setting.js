/** Switches for what may happen from now on. What the server holds is not told, so at first they
 * are neither on nor off. */

import { labelled } from "./checks.js";
import { el } from "./dom.js";

/**
 * @param {object} options
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {import("./panel.js").Run} options.run
 */
export function createSetting({ i18n, run }) {
  let conversation = "";

  /**
   * @param {string} title
   * @param {(on: boolean) => object} fields
   */
  function toggle(title, fields) {
    const box = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", name: title }));
    box.indeterminate = true;
    box.addEventListener("change", async () => {
      if (!(await run("conversation.set", fields(box.checked)))) box.indeterminate = true;
    });
    return { box, node: el("label", { class: "check" }, box, i18n.put(el("span"), title)) };
  }

  const ambient = toggle("ambient", (on) => ({ ambient: on ? "on" : "off" }));
  const hold = toggle("hold", (on) => ({ hold: on }));
  const about = /** @type {HTMLInputElement} */ (el("input", { type: "text", maxlength: 500 }));
  about.addEventListener("change", () =>
    run("conversation.set", { instructions: about.value.trim() }),
  );

  return {
    node: el("div", { class: "stacked" }, ambient.node, hold.node, labelled("about", about, i18n)),

    /** @param {import("./conversation.js").Conversation} state */
    show(state) {
      if (state.id === conversation) return;
      conversation = state.id;
      for (const { box } of [ambient, hold]) {
        box.checked = false;
        box.indeterminate = true;
      }
      about.value = "";
    },
  };
}
