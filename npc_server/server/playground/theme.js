/** Light, dark, or as the system is. */

import { kept } from "./storage.js";

/** @typedef {"auto" | "light" | "dark"} Theme */

/** @type {Record<Theme, {next: Theme, label: string, sign: string}>} */
const THEMES = {
  auto: { next: "light", label: "themeAuto", sign: "◐" },
  light: { next: "dark", label: "themeLight", sign: "○" },
  dark: { next: "auto", label: "themeDark", sign: "●" },
};

/**
 * Let a button go through the themes.
 * @param {HTMLButtonElement} button
 * @param {import("./i18n.js").I18n} i18n
 */
export function themeSwitch(button, i18n) {
  const remembered = kept.get("theme");
  let theme = /** @type {Theme} */ (remembered && remembered in THEMES ? remembered : "auto");

  function apply() {
    const { label, sign } = THEMES[theme];
    document.documentElement.dataset.theme = theme;
    /** @type {HTMLElement} */ (button.firstElementChild).textContent = sign;
    i18n.put(button, label, undefined, "tLabel");
    i18n.put(button, label, undefined, "tTitle");
  }

  button.addEventListener("click", () => {
    theme = THEMES[theme].next;
    kept.set("theme", theme);
    apply();
  });
  apply();
}
