/** The page: puts the parts together. The only module that knows all of them. */

import { fetchPersonas, inOrder, personaCard } from "./chooser.js";
import { createClient } from "./client.js";
import { createComposer } from "./composer.js";
import { npcOf } from "./conversation.js";
import { byId } from "./dom.js";
import { createFrames } from "./frames.js";
import { createI18n } from "./i18n.js";
import { createPromptView } from "./prompt.js";
import { createStage } from "./stage.js";
import { createStatus } from "./status.js";
import { forTab, kept, newId, playerId } from "./storage.js";
import { createTalk } from "./talk.js";
import { themeSwitch } from "./theme.js";
import { createTranscript } from "./transcript.js";

/** @typedef {import("./chooser.js").Persona} Persona */

const UNAUTHORIZED = 4401;

function start() {
  const i18n = createI18n();
  const me = playerId();
  /** @type {Persona[]} */
  let personas = [];
  /** @type {string | null} */
  let wanted = null;

  const frames = createFrames({
    panel: byId("frames"),
    list: byId("frames-list"),
    filter: byId("frames-filter"),
    direction: byId("frames-direction"),
    count: byId("frames-count"),
    copy: byId("frames-copy"),
    clear: byId("frames-clear"),
    i18n,
  });
  const stage = createStage({
    stage: byId("stage"),
    picture: byId("portrait"),
    name: byId("npc-name"),
    summary: byId("npc-summary"),
    mood: byId("npc-mood"),
    gesture: byId("npc-gesture"),
    i18n,
  });
  const showStatus = createStatus({
    node: byId("status"),
    text: byId("status-text"),
    retry: byId("retry"),
    i18n,
  });
  const prompts = createPromptView({
    dialog: byId("prompt"),
    body: byId("prompt-body"),
    i18n,
    key: () => forTab.get("key"),
  });
  const transcript = createTranscript({
    scroller: byId("scroller"),
    list: byId("turns"),
    empty: byId("empty"),
    live: byId("live"),
    i18n,
    onPrompt: (turn) => prompts.open(turn.key),
    onAgain: (turn) => talk.sayAgain(turn),
    onAnew: (turn) => talk.anew(turn),
    onAct: (...result) => talk.act(...result),
  });

  const client = createClient({
    url: new URL("/", location.href.replace(/^http/, "ws")).href,
    hello: () => ({
      protocol: 1,
      token: forTab.get("key") ?? undefined,
      client: { name: "playground" },
      player: { id: me, name: playerName(), locale: i18n.language },
    }),
    onEvent(event) {
      if (event.type === "welcome") welcomed(event);
      else if (event.type === "draining") notify(i18n.t("draining"));
      else if (event.type !== "error" || client.online) talk.take(event);
    },
    onFrame: frames.add,
    onState(state) {
      showStatus(state);
      if (state.name !== "online") talk.offline();
      if (state.name === "stopped") stopped(state);
    },
  });

  const talk = createTalk({
    client,
    me,
    pace: () => (byId("pace").value === "spoken" ? "spoken" : "instant"),
    screen: {
      show: transcript.show,
      showBefore: transcript.showBefore,
      opened(state) {
        const npc = npcOf(state);
        const persona = personas.find((known) => known.id === npc?.npc);
        if (npc && persona) stage.enter(persona, npc.name);
        if (npc) i18n.put(byId("field"), "say", { name: npc.name }, "tPlaceholder");
        byId("earlier").hidden = !state.earlier;
      },
      restart(state) {
        transcript.clear();
        byId("earlier").hidden = true;
        transcript.show(state, state.turns, null);
      },
      sentence: transcript.announce,
      feel: stage.feel,
      talk: stage.talk,
      speaking,
      problem: notify,
      closed: () => notify(i18n.t("closed")),
      gone(message) {
        location.hash = "";
        notify(message ?? i18n.t("gone"));
      },
    },
  });

  const composer = createComposer({
    form: byId("composer"),
    field: byId("field"),
    counter: byId("counter"),
    send: byId("send"),
    i18n,
    onSay(text) {
      transcript.toEnd();
      return talk.say(text);
    },
    onInput: talk.input,
  });

  function playerName() {
    return byId("player-name").value.trim().slice(0, 64) || i18n.t("guest");
  }

  /** @param {any} event */
  function welcomed(event) {
    composer.setLimit(event.limits.text_chars);
    notify("");
    talk.online();
  }

  /** @param {import("./client.js").State} state */
  function stopped(state) {
    if (state.code === UNAUTHORIZED) {
      byId("key-problem").textContent = forTab.get("key") ? (state.message ?? "") : "";
      byId("key").showModal();
    } else notify(state.message ?? i18n.t("stoppedCode", { code: state.code ?? 0 }));
  }

  /** @param {boolean} active */
  function speaking(active) {
    const button = byId("interrupt");
    if (!active && document.activeElement === button) composer.focus();
    button.hidden = !active;
  }

  /** @param {string} message */
  function notify(message) {
    byId("notice-text").textContent = message;
    byId("notice").hidden = !message;
  }

  /** @param {"chooser" | "talk"} view */
  function showView(view) {
    for (const name of ["chooser", "talk"]) byId(name).hidden = name !== view;
    byId("people").hidden = view === "chooser";
    byId("skip").hidden = view === "chooser";
  }

  function drawCards() {
    const cards = inOrder(personas, i18n.language).map((p) => personaCard(p, i18n, choose));
    byId("cards").replaceChildren(...cards);
  }

  /** @param {Persona} persona */
  function choose(persona) {
    const name = byId("player-name").value.trim();
    // The server learns the name from `hello`.
    if (name !== (kept.get("name") ?? "")) {
      kept.set("name", name || null);
      client.start();
    }
    wanted = persona.id;
    stage.enter(persona, persona.name);
    location.hash = `c=${newId()}`;
  }

  /** Go where the address says: a conversation goes on, or one is chosen. */
  function follow() {
    const id = new URLSearchParams(location.hash.slice(1)).get("c");
    if (id && id === talk.state?.id) return;
    if (!id) {
      const left = talk.state !== null;
      talk.leave();
      stage.leave();
      showView("chooser");
      if (left) byId("chooser-title").focus();
      return;
    }
    notify("");
    showView("talk");
    talk.enter(id, wanted ? [wanted] : []);
    wanted = null;
    composer.focus();
  }

  async function loadPersonas() {
    const note = byId("cards-note");
    try {
      personas = await fetchPersonas();
      drawCards();
      note.hidden = personas.length > 0;
      if (!personas.length) i18n.put(note, "noPersonas");
    } catch {
      i18n.put(note, "personasFailed");
    }
  }

  function wireButtons() {
    byId("people").addEventListener("click", () => {
      location.hash = "";
    });
    byId("interrupt").addEventListener("click", talk.interrupt);
    byId("earlier").addEventListener("click", talk.earlier);
    byId("retry").addEventListener("click", client.start);
    byId("notice-close").addEventListener("click", () => notify(""));
    byId("language").addEventListener("click", () => {
      i18n.use(i18n.language === "en" ? "ko" : "en");
      markLanguage();
      drawCards();
    });
    byId("frames-toggle").addEventListener("click", () => toggleFrames());
    byId("frames-close").addEventListener("click", () => {
      toggleFrames();
      byId("frames-toggle").focus();
    });
    byId("prompt-close").addEventListener("click", () => byId("prompt").close());
    byId("key-form").addEventListener("submit", () => {
      forTab.set("key", byId("key-field").value.trim());
      client.start();
    });
    addEventListener("keydown", (event) => {
      const inDialog = document.querySelector("dialog[open]");
      if (event.key === "Escape" && !event.isComposing && !inDialog) talk.interrupt();
    });
    addEventListener("online", client.retryNow);
    addEventListener("hashchange", follow);
  }

  /** The button speaks the language that it leads to. */
  function markLanguage() {
    byId("language").lang = i18n.language === "en" ? "ko" : "en";
  }

  function toggleFrames() {
    const open = byId("frames").hidden;
    frames.toggle(open);
    document.body.classList.toggle("with-frames", open);
    byId("frames-toggle").setAttribute("aria-expanded", String(open));
  }

  byId("player-name").value = kept.get("name") ?? "";
  byId("pace").value = kept.get("pace") ?? "instant";
  byId("pace").addEventListener("change", () => kept.set("pace", byId("pace").value));
  i18n.refreshAll();
  markLanguage();
  themeSwitch(byId("theme"), i18n);
  wireButtons();
  loadPersonas().then(() => {
    follow();
    client.start();
  });
}

start();
