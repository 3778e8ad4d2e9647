/** The page: puts the parts together. The only module that knows all of them. */

import { addressed, settleAddress, whereTo } from "./address.js";
import { createAudience } from "./audience.js";
import { createChooser } from "./chooser.js";
import { createClient } from "./client.js";
import { createComposer } from "./composer.js";
import { createDirector } from "./director.js";
import { byId } from "./dom.js";
import { createFrames } from "./frames.js";
import { createGathering } from "./gathering.js";
import { createI18n } from "./i18n.js";
import { createInvite } from "./invite.js";
import { nameOf, npcsIn } from "./members.js";
import { createPanel } from "./panel.js";
import { createPromptView } from "./prompt.js";
import { createStage } from "./stage.js";
import { createStatus } from "./status.js";
import { forTab, kept, newId, playerId } from "./storage.js";
import { createTalk } from "./talk.js";
import { themeSwitch } from "./theme.js";
import { createTranscript } from "./transcript.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */

const UNAUTHORIZED = 4401;

function start() {
  const i18n = createI18n();
  const me = playerId();
  const url = new URL("/", location.href.replace(/^http/, "ws")).href;
  /** @type {import("./talk.js").Choice | null} */
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
    persona: (npc) => chooser.persona(npc),
    scene: (id) => chooser.scene(id),
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
    onRun(turn, messages) {
      const where = { conversation: talk.state?.id, player: me };
      return director.ask("prompt.run", { ...where, turn, messages });
    },
  });
  const invitation = createInvite({
    dialog: byId("invitation"),
    name: byId("invitation-name"),
    link: byId("invitation-link"),
    copy: byId("invitation-copy"),
    open: byId("invitation-open"),
    i18n,
  });
  const chooser = createChooser({
    cards: byId("cards"),
    note: byId("cards-note"),
    scenesPart: byId("scenes-part"),
    scenes: byId("scenes"),
    several: byId("several"),
    bar: byId("begin-bar"),
    names: byId("begin-names"),
    begin: byId("begin"),
    i18n,
    onChoose: choose,
  });
  const audience = createAudience({
    bar: byId("audience"),
    chips: byId("chips"),
    whisper: byId("whisper"),
    doing: byId("doing"),
    i18n,
    onChange: aimed,
  });
  const gathering = createGathering({
    picture: byId("gathering"),
    i18n,
    look: (npc) => chooser.persona(npc)?.portrait,
    onPick: audience.toggle,
    mayMove: () => director.standing === "host" && !byId("director").hidden,
    onMove: (groups) => panel.run("scene.set", { groups }),
  });
  const transcript = createTranscript({
    scroller: byId("scroller"),
    list: byId("turns"),
    empty: byId("empty"),
    live: byId("live"),
    i18n,
    onPrompt: (turn) => prompts.open(turn),
    onAgain: (turn) => talk.sayAgain(turn),
    onAnew: (turn) => talk.anew(turn),
    onAct: (...result) => talk.act(...result),
    onRewind: (turn) => panel.run("rewind", { to_turn: turn.key }),
    onRedact: (turn) => panel.run("turn.redact", { turn: turn.key }),
  });

  const hello = () => ({
    protocol: 1,
    token: forTab.get("key") ?? undefined,
    client: { name: "playground" },
    player: { id: me, name: playerName(), locale: i18n.language },
  });

  const client = createClient({
    url,
    // It hears only what its player hears, also where it could be a host.
    hello: () => ({ ...hello(), role: "player" }),
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

  const director = createDirector({
    url,
    hello,
    onFrame: (way, frame) => frames.add(way, frame, true),
    onStanding: (...standing) => panel.stand(...standing),
  });
  const panel = createPanel({
    panel: byId("director"),
    body: byId("director-body"),
    note: byId("director-note"),
    i18n,
    director,
    me,
    conversation: () => talk.state,
    personas: () => chooser.personas,
  });

  const talk = createTalk({
    client,
    me,
    pace: () => (byId("pace").value === "spoken" ? "spoken" : "instant"),
    screen: {
      show: transcript.show,
      showBefore: transcript.showBefore,
      opened(state) {
        changed(state);
        aimed(audience.aim);
        byId("earlier").hidden = !state.earlier;
        byId("invite").hidden = !state.invite;
      },
      changed,
      restart(state) {
        transcript.clear();
        byId("earlier").hidden = true;
        transcript.show(state, state.turns, () => false);
      },
      sentence: transcript.announce,
      feel(member, feeling) {
        gathering.feel(member, feeling);
        if (talk.state && npcsIn(talk.state)[0]?.member === member) stage.feel(feeling);
      },
      talk(member) {
        gathering.talk(member);
        stage.talk();
      },
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
      return talk.say(text, audience.aim);
    },
    onInput: talk.input,
  });

  /** @param {Conversation} state Something of it is another now. */
  function changed(state) {
    gathering.show(state);
    audience.show(state);
    panel.show(state);
    if (stage.show(state)) aimed(audience.aim);
  }

  /** @param {{to: string[], whisper: boolean}} aim The player chose to whom it speaks. */
  function aimed({ to, whisper }) {
    gathering.mark(to);
    byId("composer").classList.toggle("whispering", whisper);
    const { state } = talk;
    const npcs = state ? npcsIn(state) : [];
    const names = to.map((member) => (state ? nameOf(state, member) : member)).join(", ");
    const field = byId("field");
    if (to.length) i18n.put(field, whisper ? "sayWhisper" : "say", { name: names }, "tPlaceholder");
    else if (npcs.length === 1) i18n.put(field, "say", { name: npcs[0].name }, "tPlaceholder");
    else if (npcs.length) i18n.put(field, "sayAll", {}, "tPlaceholder");
  }

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
    for (const name of ["people", "skip", "director-toggle"]) byId(name).hidden = view === "chooser";
    if (view === "chooser") {
      byId("invite").hidden = true;
      if (!byId("director").hidden) toggleSide("director");
    }
  }

  /** @param {import("./talk.js").Choice} choice */
  function choose(choice) {
    const name = byId("player-name").value.trim();
    // The server learns the name from `hello`.
    if (name !== (kept.get("name") ?? "")) {
      kept.set("name", name || null);
      client.start();
    }
    wanted = choice;
    const [only, ...more] = choice.npcs ?? [];
    const persona = more.length ? undefined : chooser.persona(only);
    if (persona) stage.enter(persona, persona.name);
    location.hash = `c=${newId()}`;
  }

  /** Go where the address says: a conversation goes on, or one is chosen. */
  function follow() {
    const { conversation: id, invite } = whereTo();
    if (id && id === talk.state?.id) return;
    const left = talk.state !== null;
    if (left) {
      talk.leave();
      gathering.clear();
      audience.clear();
    }
    if (!id) {
      stage.leave();
      showView("chooser");
      if (left) byId("chooser-title").focus();
      return;
    }
    notify("");
    showView("talk");
    talk.enter(id, wanted ?? (invite ? { invite } : {}));
    wanted = null;
    composer.focus();
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
      chooser.draw();
      if (talk.state) changed(talk.state);
    });
    for (const side of ["frames", "director"]) {
      byId(`${side}-toggle`).addEventListener("click", () => toggleSide(side));
      byId(`${side}-close`).addEventListener("click", () => {
        toggleSide(side);
        byId(`${side}-toggle`).focus();
      });
    }
    byId("invite").addEventListener("click", () => {
      const { state } = talk;
      if (state?.invite) invitation.show(state.id, state.invite);
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

  /**
   * Open a side panel, or close it; there is room for one of them.
   * @param {string} side
   */
  function toggleSide(side) {
    const open = byId(side).hidden;
    for (const name of ["frames", "director"]) {
      const shows = open && name === side;
      byId(name).hidden = !shows;
      byId(`${name}-toggle`).setAttribute("aria-expanded", String(shows));
    }
    frames.toggle(open && side === "frames");
    direct(open && side === "director");
    document.body.classList.toggle("with-frames", open);
  }

  /** @param {boolean} open */
  function direct(open) {
    document.body.classList.toggle("directing", open);
    if (!open) {
      director.close();
      return;
    }
    director.open();
    panel.stand(director.standing);
    if (talk.state) panel.show(talk.state);
  }

  settleAddress();
  byId("player-name").value = addressed("name") ?? kept.get("name") ?? "";
  byId("pace").value = kept.get("pace") ?? "instant";
  byId("pace").addEventListener("change", () => kept.set("pace", byId("pace").value));
  i18n.refreshAll();
  markLanguage();
  themeSwitch(byId("theme"), i18n);
  wireButtons();
  chooser.load().then(() => {
    follow();
    client.start();
  });
}

start();
