/** The page's language: what is on the screen follows when it changes. */

import { kept } from "./storage.js";
import { STRINGS } from "./strings.js";

/** @typedef {"en" | "ko"} Language */
/** @typedef {ReturnType<typeof createI18n>} I18n */

/**
 * The language that was chosen, else the browser's, else English.
 * @returns {Language}
 */
function preferred() {
  const chosen = kept.get("language");
  if (chosen === "en" || chosen === "ko") return chosen;
  return navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en";
}

export function createI18n() {
  let language = preferred();

  /**
   * @param {string} key
   * @param {Record<string, string | number>} [values]
   * @returns {string}
   */
  function t(key, values = {}) {
    const pattern = STRINGS[language][key];
    if (pattern === undefined) throw new Error(`no text for "${key}"`);
    return pattern.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
  }

  /** @param {Element} node */
  function refresh(node) {
    const { t: text, tLabel, tPlaceholder, tTitle, tValues } = /** @type {HTMLElement} */ (node).dataset;
    const values = tValues ? JSON.parse(tValues) : {};
    if (text) node.textContent = t(text, values);
    if (tLabel) node.setAttribute("aria-label", t(tLabel, values));
    if (tPlaceholder) node.setAttribute("placeholder", t(tPlaceholder, values));
    if (tTitle) node.setAttribute("title", t(tTitle, values));
  }

  function refreshAll() {
    document.documentElement.lang = language;
    document.title = t("title");
    const marked = "[data-t], [data-t-label], [data-t-placeholder], [data-t-title]";
    for (const node of document.querySelectorAll(marked)) refresh(node);
  }

  return {
    t,
    refreshAll,

    /**
     * Give an element a text (or a label, a placeholder) that follows the language.
     * @template {Element} E
     * @param {E} node
     * @param {string} key
     * @param {Record<string, string | number>} [values]
     * @param {"t" | "tLabel" | "tPlaceholder" | "tTitle"} [kind]
     * @returns {E}
     */
    put(node, key, values, kind = "t") {
      const { dataset } = /** @type {any} */ (node);
      dataset[kind] = key;
      if (values) dataset.tValues = JSON.stringify(values);
      refresh(node);
      return node;
    },

    /** @returns {Language} */
    get language() {
      return language;
    },

    /** @param {Language} next */
    use(next) {
      language = next;
      kept.set("language", next);
      refreshAll();
    },
  };
}
