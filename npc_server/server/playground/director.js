/** The director: a second connection, with the role of a host. It opens no conversation, so it
 * hears nothing; it sends what only a host may, and gets the answers. */

import { createClient } from "./client.js";

const TRIES = 40;
const AGAIN_AFTER_MS = 500;

/** @typedef {{code: string, message: string}} Refusal */
/** @typedef {"off" | "connecting" | "host" | "player" | "stopped"} Standing */

/**
 * @typedef {object} Waiting
 * @property {string} type
 * @property {object} fields
 * @property {(event: any) => void} resolve
 * @property {(refusal: Refusal) => void} reject
 * @property {(event: any) => boolean} take Whether the answer is complete with this event.
 * @property {number} tries
 */

/**
 * @param {object} options
 * @param {string} options.url
 * @param {() => object} options.hello
 * @param {(direction: "in" | "out", frame: any) => void} options.onFrame
 * @param {(standing: Standing, message?: string) => void} options.onStanding
 */
export function createDirector({ url, hello, onFrame, onStanding }) {
  /** @type {Standing} */
  let standing = "off";
  /** @type {Map<string, Waiting>} */
  const waiting = new Map();
  /** @type {(() => void)[]} */
  let whenSettled = [];

  const client = createClient({
    url,
    hello: () => ({ ...hello(), role: "host" }),
    onFrame,
    onEvent(event) {
      if (event.type === "welcome") become(event.role);
      else if (event.re) answered(event);
    },
    onState(state) {
      if (state.name === "online") return;
      if (standing === "off") return;
      become(state.name === "stopped" ? "stopped" : "connecting", state.message);
      if (state.name !== "connecting") dropAll();
    },
  });

  /**
   * @param {Standing} next
   * @param {string} [message]
   */
  function become(next, message) {
    standing = next;
    onStanding(next, message);
    if (next === "connecting") return;
    const settled = whenSettled;
    whenSettled = [];
    for (const go of settled) go();
  }

  /** What was sent may have been done or not: nobody knows, so nobody is left waiting. */
  function dropAll() {
    for (const { reject } of waiting.values()) reject({ code: "lost", message: "" });
    waiting.clear();
  }

  /** @param {any} event */
  function answered(event) {
    const asked = waiting.get(event.re);
    if (!asked) return;
    if (event.type === "error") refused(event, asked);
    else if (asked.take(event)) {
      waiting.delete(event.re);
      asked.resolve(event);
    }
  }

  /**
   * @param {any} event
   * @param {Waiting} asked
   */
  function refused(event, asked) {
    asked.tries += 1;
    if (event.retryable && asked.tries < TRIES) {
      const again = () => waiting.has(event.re) && client.send(asked.type, asked.fields, event.re);
      setTimeout(again, event.retry_after_ms ?? AGAIN_AFTER_MS);
      return;
    }
    waiting.delete(event.re);
    asked.reject({ code: event.code, message: event.message });
  }

  return {
    /** Connect, if it is not connected. */
    open() {
      if (standing === "off" || standing === "stopped") {
        become("connecting");
        client.start();
      }
    },

    /** Hang up. */
    close() {
      if (standing === "off") return;
      become("off");
      dropAll();
      client.stop();
    },

    /**
     * Send a command, and wait for its answer; what is to be sent again is.
     * @param {string} type
     * @param {object} fields
     * @param {(event: any) => boolean} [take] Sees each part of the answer, and says which is the last.
     * @returns {Promise<any>} The event that answers it; rejected with a `Refusal`.
     */
    async ask(type, fields, take = () => true) {
      this.open();
      if (standing === "connecting") await new Promise((go) => whenSettled.push(() => go(null)));
      if (standing !== "host") throw { code: "no_host", message: "" };
      return new Promise((resolve, reject) => {
        const id = client.newId();
        waiting.set(id, { type, fields, resolve, reject, take, tries: 0 });
        client.send(type, fields, id);
      });
    },

    /** @returns {Standing} */
    get standing() {
      return standing;
    },
  };
}
