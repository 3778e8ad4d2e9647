/** The protocol client: one socket, its `hello`, and coming back after it was lost. */

const SUBPROTOCOL = "npc.v1";
const FINAL_CODES = new Set([1009, 4400, 4401, 4403, 4409]);
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const WELCOME_WITHIN_MS = 10_000;

/**
 * @typedef {object} State
 * @property {"connecting" | "online" | "waiting" | "stopped"} name
 * @property {number} [retryAt] When it tries again, by `Date.now()`.
 * @property {number} [code] The close code, once stopped.
 * @property {string} [message] What the server said before it closed.
 */

/**
 * How long to wait before an attempt: exponential, at least half of it, the rest by chance.
 * @param {number} attempt From 0.
 * @param {number} chance From 0 to 1.
 * @returns {number} Milliseconds.
 */
export function backoff(attempt, chance) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return longest / 2 + (longest / 2) * chance;
}

/**
 * @param {object} options
 * @param {string} options.url
 * @param {() => object} options.hello The fields of `hello`, asked for at every connection.
 * @param {(event: any) => void} options.onEvent
 * @param {(direction: "in" | "out", frame: any) => void} options.onFrame
 * @param {(state: State) => void} options.onState
 */
export function createClient({ url, hello, onEvent, onFrame, onState }) {
  /** @type {WebSocket | null} */
  let socket = null;
  /** @type {State} */
  let state = { name: "stopped" };
  let attempt = 0;
  let number = 0;
  let timer = 0;
  let pauseMs = 0;
  /** @type {string | undefined} */
  let refusal;
  const prefix = Math.random().toString(36).slice(2, 10);

  /** @param {State} next */
  function become(next) {
    state = next;
    onState(state);
  }

  function connect() {
    clearTimeout(timer);
    become({ name: "connecting" });
    refusal = undefined;
    const opening = new WebSocket(url, [SUBPROTOCOL]);
    socket = opening;
    timer = setTimeout(() => opening.close(), WELCOME_WITHIN_MS);
    opening.onopen = () => transmit({ type: "hello", id: nextId(), ...hello() });
    opening.onmessage = ({ data }) => receive(JSON.parse(data));
    opening.onclose = ({ code }) => {
      if (socket === opening) lost(code);
    };
  }

  /** @param {any} event */
  function receive(event) {
    onFrame("in", event);
    if (event.type === "welcome") {
      clearTimeout(timer);
      attempt = 0;
      become({ name: "online" });
    } else if (event.type === "draining") pauseMs = event.reconnect_after_ms;
    else if (event.type === "error" && state.name === "connecting") refusal = event.message;
    onEvent(event);
  }

  /** @param {number} code */
  function lost(code) {
    clearTimeout(timer);
    socket = null;
    if (FINAL_CODES.has(code)) {
      become({ name: "stopped", code, message: refusal });
      return;
    }
    const delay = Math.max(pauseMs, backoff(attempt, Math.random()));
    pauseMs = 0;
    attempt += 1;
    become({ name: "waiting", retryAt: Date.now() + delay });
    timer = setTimeout(connect, delay);
  }

  /** @param {any} frame */
  function transmit(frame) {
    onFrame("out", frame);
    socket?.send(JSON.stringify(frame));
  }

  const nextId = () => `${prefix}-${(number += 1)}`;

  return {
    /** An id for a command that is sent later, perhaps more than once. */
    newId: nextId,

    /** Connect now, whatever was before. */
    start() {
      const old = socket;
      socket = null;
      old?.close();
      attempt = 0;
      connect();
    },

    /** Hang up, and stay away until it is started again. */
    stop() {
      clearTimeout(timer);
      const old = socket;
      socket = null;
      old?.close();
      state = { name: "stopped" };
    },

    /** Try again at once, if it is waiting to. */
    retryNow() {
      if (state.name === "waiting") connect();
    },

    /**
     * Send a command that is answered.
     * @param {string} type
     * @param {object} fields
     * @param {string} [id] That of an earlier try; the same id has no second effect.
     * @returns {string} Its id, also where it could not be sent because the socket is away.
     */
    send(type, fields, id = nextId()) {
      if (state.name === "online") transmit({ type, id, ...fields });
      return id;
    },

    /**
     * Send what is never answered, and not worth to be kept.
     * @param {string} type
     * @param {object} fields
     */
    signal(type, fields) {
      if (state.name === "online") transmit({ type, ...fields });
    },

    get online() {
      return state.name === "online";
    },
  };
}
