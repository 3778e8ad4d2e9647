/** The page's address: who plays, which conversation, and the links that lead others into it. */

/**
 * What the address says of the player: `player` its id, `name` its name.
 * @param {"player" | "name"} what
 * @returns {string | null}
 */
export function addressed(what) {
  return new URLSearchParams(location.search).get(what)?.trim() || null;
}

/**
 * The conversation that the address names, and the invite with which it may be entered.
 * @returns {{conversation: string | null, invite: string | null}}
 */
export function whereTo() {
  const parts = new URLSearchParams(location.hash.slice(1));
  return { conversation: parts.get("c"), invite: parts.get("i") };
}

/** Bring the conversation of an invite link to where the page keeps it, so that one can leave it. */
export function settleAddress() {
  const parts = new URLSearchParams(location.search);
  const conversation = parts.get("conversation");
  if (!conversation) return;
  const invite = parts.get("invite");
  for (const name of ["conversation", "invite"]) parts.delete(name);
  const hash = new URLSearchParams({ c: conversation, ...(invite ? { i: invite } : {}) });
  history.replaceState(null, "", `?${parts}#${hash}`);
}

/**
 * The address that leads another player into a conversation.
 * @param {{player: string, name: string, conversation: string, invite: string}} guest
 * @returns {string}
 */
export function inviteLink({ player, name, conversation, invite }) {
  const parts = new URLSearchParams({ player, ...(name ? { name } : {}), conversation, invite });
  return new URL(`?${parts}`, location.origin + location.pathname).href;
}
