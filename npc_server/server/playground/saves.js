/** Saves of the world: made, loaded, deleted, and carried as files. */

import { textButton } from "./checks.js";
import { el } from "./dom.js";

/** So many bytes of a file go up in a part: in base64 48 KiB, which leaves room in a frame. */
const PART = 36 * 1024;
const FILE_END = ".npcsave";

/**
 * Bytes in base64.
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toBase64(bytes) {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}

/**
 * @param {string} text Base64.
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/**
 * @param {object} options
 * @param {import("./i18n.js").I18n} options.i18n
 * @param {import("./panel.js").Run} options.run
 * @param {(message: string) => void} options.tell
 */
export function createSaves({ i18n, run, tell }) {
  const list = el("ul", { class: "saves" });
  const name = /** @type {HTMLInputElement} */ (
    el("input", { type: "text", maxlength: 64, required: true, autocomplete: "off" })
  );
  i18n.put(i18n.put(name, "saveName", undefined, "tPlaceholder"), "saveName", undefined, "tLabel");
  const save = i18n.put(el("button", { type: "submit" }), "save");
  const file = /** @type {HTMLInputElement} */ (
    el("input", { type: "file", accept: FILE_END, hidden: true })
  );
  const choose = textButton("importFile", i18n, () => file.click(), "");

  async function refresh() {
    const answer = await run("checkpoint.list");
    if (answer) list.replaceChildren(...answer.checkpoints.map(row));
  }

  /** @param {{name: string, bytes: number, at_ms: number, conversations: number}} saved */
  function row({ name: called, bytes, at_ms: at, conversations }) {
    const when = new Date(at).toLocaleString(i18n.language);
    const about = { when, size: Math.ceil(bytes / 1024), count: conversations };
    return el(
      "li",
      { "data-save": called },
      el("strong", { text: called, dir: "auto" }),
      i18n.put(el("span", { class: "note" }), "saveAbout", about),
      el(
        "span",
        { class: "save-tools" },
        textButton("load", i18n, () => run("checkpoint.load", { name: called })),
        textButton("exportFile", i18n, () => download(called)),
        textButton("remove", i18n, () => changed("checkpoint.delete", { name: called })),
      ),
    );
  }

  /**
   * @param {string} type
   * @param {object} fields
   */
  async function changed(type, fields) {
    const done = await run(type, fields);
    if (done) await refresh();
    return done;
  }

  /** @param {string} called */
  async function download(called) {
    /** @type {Uint8Array<ArrayBuffer>[]} */
    const parts = [];
    const take = (/** @type {any} */ event) => {
      parts.push(fromBase64(event.data));
      return event.part === event.parts;
    };
    if (!(await run("checkpoint.export", { name: called }, take))) return;
    const url = URL.createObjectURL(new Blob(parts));
    el("a", { href: url, download: called + FILE_END }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  /** @param {File} chosen */
  async function upload(chosen) {
    const bytes = new Uint8Array(await chosen.arrayBuffer());
    const called = chosen.name.replace(/\.npcsave$/, "").slice(0, 64);
    const parts = Math.max(1, Math.ceil(bytes.length / PART));
    for (let part = 1; part <= parts; part += 1) {
      const data = toBase64(bytes.subarray((part - 1) * PART, part * PART));
      if (!(await run("checkpoint.import", { name: called, part, parts, data }))) return;
      if (parts > 1) tell(i18n.t("importing", { part, parts }));
    }
    tell("");
    await refresh();
  }

  file.addEventListener("change", async () => {
    const [chosen] = file.files ?? [];
    file.value = "";
    if (chosen) await upload(chosen);
  });

  /** @param {Event} event */
  async function submit(event) {
    event.preventDefault();
    if (await changed("checkpoint.save", { name: name.value.trim() })) name.value = "";
  }

  const form = el("form", { class: "save-form", on: { submit } }, name, save);
  return { node: el("div", { class: "stacked" }, form, list, choose, file), list: refresh };
}
