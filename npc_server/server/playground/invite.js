/** Inviting somebody: a link that leads another player into the conversation. */

import { inviteLink } from "./address.js";
import { newId } from "./storage.js";

/**
 * @param {object} options
 * @param {HTMLDialogElement} options.dialog
 * @param {HTMLInputElement} options.name
 * @param {HTMLInputElement} options.link
 * @param {HTMLButtonElement} options.copy
 * @param {HTMLAnchorElement} options.open
 * @param {import("./i18n.js").I18n} options.i18n
 */
export function createInvite({ dialog, name, link, copy, open, i18n }) {
  /** @type {{player: string, conversation: string, invite: string} | null} */
  let guest = null;

  function write() {
    if (!guest) return;
    link.value = inviteLink({ ...guest, name: name.value.trim() });
    open.href = link.value;
  }

  async function copied() {
    const done = await navigator.clipboard?.writeText(link.value).then(
      () => true,
      () => false,
    );
    if (!done) link.select();
    i18n.put(copy, done ? "copied" : "copyFailed");
    setTimeout(() => i18n.put(copy, "copy"), 1_600);
  }

  name.addEventListener("input", write);
  copy.addEventListener("click", copied);
  open.addEventListener("click", () => dialog.close());

  return {
    /**
     * Make a link for one more player.
     * @param {string} conversation
     * @param {string} invite
     */
    show(conversation, invite) {
      guest = { player: `guest-${newId().slice(0, 8)}`, conversation, invite };
      name.value = "";
      write();
      dialog.showModal();
    },
  };
}
