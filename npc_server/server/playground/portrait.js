/** A living portrait: a figure whose eyes, brows and mouth follow the emotion. */

import { svg } from "./dom.js";
import { between, faceOf, movementOf } from "./face.js";
import { HEADS, body, hairBefore, hairBehind, head, headwear, mix } from "./figure.js";

const BUST = "30 24 340 342";
const DARK = "#2b2022";
const BLINK_MS = 150;
const CHANGE_MS = 380;
const GESTURE_MS = 900;

/** @typedef {import("./face.js").Face} Face */
/** @typedef {import("./figure.js").Look} Look */

/**
 * @param {Look} look
 * @returns {{node: SVGElement, paint: (face: Face, move?: {turn?: number, x?: number, y?: number}) => void}}
 */
export function drawFigure(look) {
  const { cy, ry } = HEADS[look.age];
  const big = look.age === "child" ? 1.22 : 1;
  const [left, right] = [eye(163, cy - 4, big), eye(237, cy - 4, big)];
  const browColour = look.hair_style === "bald" ? mix(look.skin, DARK, 0.55) : mix(look.hair, DARK, 0.3);
  const brow = { stroke: browColour, fill: "none", "stroke-width": 7, "stroke-linecap": "round" };
  const brows = [svg("path", brow), svg("path", brow)];
  const mouth = svg("path", {
    fill: "#7c3038",
    stroke: mix(look.skin, "#7a2f36", 0.62),
    "stroke-width": 5,
    "stroke-linejoin": "round",
    "stroke-linecap": "round",
  });
  const cheek = { ry: 11, rx: 17, cy: cy + 30, fill: mix(look.skin, "#e0433f", 0.42) };
  const cheeks = [svg("ellipse", { cx: 145, ...cheek }), svg("ellipse", { cx: 255, ...cheek })];
  const features = [...cheeks, ...left.nodes, ...right.nodes];
  const front = hairBefore(look);
  const whole = svg(
    "g",
    {},
    ...head(look),
    ...features,
    ...front,
    ...brows,
    mouth,
    ...headwear(look),
  );
  const behind = svg("g", {}, ...hairBehind(look));
  const node = svg("svg", { viewBox: "0 0 400 440", preserveAspectRatio: "xMidYMax", class: "figure" }, behind, body(look), whole);
  const mouthY = cy + ry * (look.beard ? 0.56 : 0.55);

  return {
    node,
    paint(face, { turn = 0, x = 0, y = 0 } = {}) {
      left.paint(face);
      right.paint(face);
      brows.forEach((node, index) => node.setAttribute("d", browPath(face, cy, big, index ? 1 : -1)));
      mouth.setAttribute("d", mouthPath(face, mouthY));
      for (const node of cheeks) node.setAttribute("opacity", String(0.55 * face.blush));
      const pose = `translate(${x} ${y}) rotate(${face.tilt + turn} 200 ${cy + ry})`;
      whole.setAttribute("transform", pose);
      behind.setAttribute("transform", pose);
    },
  };
}

/**
 * @param {number} x
 * @param {number} y
 * @param {number} big
 */
function eye(x, y, big) {
  const ball = svg("path", {
    fill: DARK,
    stroke: DARK,
    "stroke-width": 3.5,
    "stroke-linejoin": "round",
    "stroke-linecap": "round",
  });
  const light = svg("circle", { cx: x + 4, cy: y - 5, r: 3.6 * big, fill: "#ffffff" });
  return {
    nodes: [ball, light],
    /** @param {Face} face */
    paint(face) {
      const open = Math.max(0, face.open);
      const w = 10.5 * big;
      const up = 17 * big * open;
      const down = 17 * big * open * (1 - 1.75 * face.squint);
      ball.setAttribute(
        "d",
        `M${x - w} ${y} C${x - w * 0.9} ${y - up} ${x + w * 0.9} ${y - up} ${x + w} ${y}
         C${x + w * 0.9} ${y + down} ${x - w * 0.9} ${y + down} ${x - w} ${y} Z`,
      );
      light.setAttribute("opacity", open > 0.45 ? "0.92" : "0");
      light.setAttribute("cy", String(y - 3 - 4 * face.squint));
    },
  };
}

/**
 * @param {Face} face
 * @param {number} cy
 * @param {number} big
 * @param {-1 | 1} side
 */
function browPath(face, cy, big, side) {
  const y = cy - 33 * big - 12 * face.brows;
  const inner = y - 9 * face.slant;
  const outer = y + 5 + 5 * face.slant;
  const at = (/** @type {number} */ offset) => 200 + side * offset;
  return `M${at(21)} ${inner} Q${at(40)} ${y - 9 - 4 * face.brows} ${at(59)} ${outer}`;
}

/**
 * @param {Face} face
 * @param {number} y
 */
function mouthPath(face, y) {
  const { width: w, curve, mouth } = face;
  const corner = y - curve * 6;
  const upper = y + curve * 15 - mouth * 10;
  const lower = y + curve * 15 + mouth * 44;
  return `M${200 - w} ${corner} Q200 ${upper} ${200 + w} ${corner} Q200 ${lower} ${200 - w} ${corner} Z`;
}

/**
 * A portrait that stands still.
 * @param {Look} look
 * @param {string} [emotion]
 * @returns {SVGElement}
 */
export function stillPortrait(look, emotion = "neutral") {
  const { node, paint } = drawFigure(look);
  paint(faceOf(emotion, 0.6));
  node.setAttribute("viewBox", BUST);
  node.setAttribute("aria-hidden", "true");
  return node;
}

/**
 * A portrait that blinks, feels, talks and moves. It stands still for people who ask for less
 * motion: the expression then changes at once.
 * @param {Look} look
 */
export function livePortrait(look) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const { node, paint } = drawFigure(look);
  let from = faceOf("neutral", 1);
  let to = from;
  let changedAt = -CHANGE_MS;
  let blinkAt = performance.now() + 1500;
  let talkUntil = 0;
  /** @type {{move: (t: number) => {turn?: number, x?: number, y?: number}, at: number} | null} */
  let gesture = null;
  let frame = 0;

  /** @param {number} now */
  function current(now) {
    const share = calm.matches ? 1 : Math.min(1, Math.max(0, (now - changedAt) / CHANGE_MS));
    return between(from, to, share * share * (3 - 2 * share));
  }

  /** @param {number} now */
  function step(now) {
    const face = current(now);
    if (calm.matches) {
      paint(face);
      frame = 0;
      return;
    }
    if (now > blinkAt) {
      const t = (now - blinkAt) / BLINK_MS;
      face.open *= Math.abs(2 * Math.min(1, t) - 1);
      if (t >= 1) blinkAt = now + 1800 + Math.random() * 4200;
    }
    if (now < talkUntil) {
      const wave = Math.abs(Math.sin(now / 74)) * (0.55 + 0.45 * Math.sin(now / 231));
      face.mouth = Math.max(face.mouth * 0.5, 0.5 * wave);
    }
    paint(face, pose(now));
    frame = requestAnimationFrame(step);
  }

  /** @param {number} now */
  function pose(now) {
    const breath = { y: 1.6 * Math.sin(now / 1100), x: 0, turn: 0.5 * Math.sin(now / 2300) };
    if (!gesture) return breath;
    const t = (now - gesture.at) / GESTURE_MS;
    if (t >= 1) {
      gesture = null;
      return breath;
    }
    const { turn = 0, x = 0, y = 0 } = gesture.move(Math.max(0, t));
    return { turn: breath.turn + turn, x, y: breath.y + y };
  }

  function wake() {
    if (!frame) frame = requestAnimationFrame(step);
  }

  calm.addEventListener("change", wake);
  paint(from);
  wake();

  return {
    node,

    /**
     * @param {string} emotion
     * @param {number} intensity From 0 to 1.
     */
    feel(emotion, intensity) {
      const now = performance.now();
      from = current(now);
      to = faceOf(emotion, intensity);
      changedAt = now;
      node.dataset.emotion = emotion;
      wake();
    },

    /** The mouth moves for a moment: words appear. */
    talk() {
      talkUntil = performance.now() + 260;
    },

    /** @param {string} name */
    gesture(name) {
      gesture = { move: movementOf(name), at: performance.now() };
      node.dataset.gesture = name;
    },

    /** Stop for good. */
    remove() {
      cancelAnimationFrame(frame);
      calm.removeEventListener("change", wake);
      node.remove();
    },
  };
}
