/** Dragging heads from place to place, with a mouse, a pen or a finger. */

const STARTS_AFTER_PX = 6;

/**
 * Let the heads inside of a node be dragged onto its places.
 * @param {HTMLElement} node
 * @param {object} options
 * @param {() => boolean} options.may Whether they may be dragged now.
 * @param {(member: string, place: HTMLElement) => void} options.onDrop
 */
export function draggable(node, { may, onDrop }) {
  /** @type {{head: HTMLElement, x: number, y: number, moves: boolean} | null} */
  let drag = null;

  /** @param {PointerEvent} event */
  function under(event) {
    const found = document.elementFromPoint(event.clientX, event.clientY)?.closest(".place");
    return /** @type {HTMLElement | null} */ (found && node.contains(found) ? found : null);
  }

  /** @param {HTMLElement | null} [place] */
  function mark(place) {
    for (const other of node.querySelectorAll(".place")) other.classList.toggle("target", other === place);
  }

  function release() {
    if (!drag) return;
    drag.head.style.translate = "";
    drag.head.classList.remove("dragged");
    node.classList.remove("dragging");
    mark();
    drag = null;
  }

  node.addEventListener("pointerdown", (event) => {
    const head = /** @type {HTMLElement} */ (event.target).closest(".person");
    if (!head || !may() || event.button !== 0) return;
    drag = { head: /** @type {HTMLElement} */ (head), x: event.clientX, y: event.clientY, moves: false };
  });
  addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!drag.moves && Math.hypot(dx, dy) < STARTS_AFTER_PX) return;
    if (!drag.moves) {
      drag.moves = true;
      drag.head.classList.add("dragged");
      node.classList.add("dragging");
    }
    drag.head.style.translate = `${dx}px ${dy}px`;
    mark(under(event));
  });
  addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { head, moves } = drag;
    const place = moves ? under(event) : null;
    release();
    if (moves) swallowClick(head);
    if (place) onDrop(head.dataset.member ?? "", place);
  });
  addEventListener("pointercancel", release);
}

/**
 * The click that a browser makes of the end of a drag is none.
 * @param {HTMLElement} head
 */
function swallowClick(head) {
  const swallow = (/** @type {Event} */ event) => event.stopImmediatePropagation();
  head.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => head.removeEventListener("click", swallow, { capture: true }));
}
