/** The state of the connection, in words. */

/** @typedef {import("./client.js").State} State */

/**
 * @param {object} options
 * @param {HTMLElement} options.node
 * @param {HTMLElement} options.text
 * @param {HTMLButtonElement} options.retry
 * @param {import("./i18n.js").I18n} options.i18n
 */
export function createStatus({ node, text, retry, i18n }) {
  let timer = 0;

  /** @param {State} state */
  function count(state) {
    const seconds = Math.max(0, Math.ceil(((state.retryAt ?? 0) - Date.now()) / 1000));
    i18n.put(text, "waiting", { seconds });
  }

  /** @param {State} state */
  return function show(state) {
    clearInterval(timer);
    node.dataset.state = state.name;
    retry.hidden = state.name !== "waiting" && state.name !== "stopped";
    if (state.name === "waiting") {
      count(state);
      timer = setInterval(() => count(state), 1_000);
    } else i18n.put(text, state.name);
  };
}
