/** Expressions as numbers, so that a face can be anywhere between two of them. */

/**
 * @typedef {object} Face
 * @property {number} brows How high the brows are, from -1 to 1.
 * @property {number} slant How the inner ends stand: 1 raised as in grief, -1 lowered as in anger.
 * @property {number} open How open the eyes are; 1 is usual.
 * @property {number} squint How far the lower lids are raised, from 0 to 1.
 * @property {number} curve Corners of the mouth: 1 up, -1 down.
 * @property {number} mouth How open the mouth is, from 0 to 1.
 * @property {number} width Half the width of the mouth.
 * @property {number} blush From 0 to 1.
 * @property {number} tilt Of the head, in degrees.
 */

/** @type {Record<string, Face>} */
const FACES = {
  neutral: face({}),
  happy: face({ brows: 0.35, squint: 0.75, curve: 1, mouth: 0.32, width: 33, blush: 0.9, tilt: -2 }),
  sad: face({ brows: 0.1, slant: 1, open: 0.72, curve: -0.75, width: 21, blush: 0.1, tilt: 5 }),
  angry: face({ brows: -0.5, slant: -1, open: 0.72, squint: 0.3, curve: -0.7, blush: 0.7 }),
  relaxed: face({ brows: 0.1, slant: 0.15, open: 0.62, squint: 0.35, curve: 0.65, width: 29, tilt: 3 }),
  surprised: face({ brows: 1, slant: 0.2, open: 1.35, curve: 0.1, mouth: 0.85, width: 15 }),
};

/** @type {(keyof Face)[]} */
const KEYS = ["brows", "slant", "open", "squint", "curve", "mouth", "width", "blush", "tilt"];

/**
 * @param {Partial<Face>} differences From a calm face.
 * @returns {Face}
 */
function face(differences) {
  return {
    brows: 0,
    slant: 0,
    open: 0.88,
    squint: 0.12,
    curve: 0.22,
    mouth: 0,
    width: 25,
    blush: 0.3,
    tilt: 0,
    ...differences,
  };
}

/**
 * The face that lies between two.
 * @param {Face} from
 * @param {Face} to
 * @param {number} share 0 is the first, 1 the second.
 * @returns {Face}
 */
export function between(from, to, share) {
  const mixed = { ...from };
  for (const key of KEYS) mixed[key] = from[key] + (to[key] - from[key]) * share;
  return mixed;
}

/**
 * The face of an emotion. Even a faint one can be seen.
 * @param {string} emotion One of the protocol's; an unknown one is neutral.
 * @param {number} intensity From 0 to 1.
 * @returns {Face}
 */
export function faceOf(emotion, intensity) {
  const share = emotion === "neutral" ? 1 : 0.45 + 0.55 * Math.min(1, Math.max(0, intensity));
  return between(FACES.neutral, FACES[emotion] ?? FACES.neutral, share);
}

/** How a gesture moves the head: by time from 0 to 1, degrees, and units to the right and down. */
/** @type {Record<string, (t: number) => {turn?: number, x?: number, y?: number}>} */
const MOVES = {
  nod: (t) => ({ y: 13 * Math.abs(Math.sin(2 * Math.PI * t)) }),
  shake: (t) => ({ x: 12 * Math.sin(4 * Math.PI * t), turn: 2 * Math.sin(4 * Math.PI * t) }),
  bow: (t) => ({ y: 34 * Math.sin(Math.PI * t), turn: 3 * Math.sin(Math.PI * t) }),
  tilt: (t) => ({ turn: 11 * Math.sin(Math.PI * t), x: 5 * Math.sin(Math.PI * t) }),
  laugh: (t) => ({ y: -5 * Math.abs(Math.sin(5 * Math.PI * t)), turn: -4 * Math.sin(Math.PI * t) }),
  shrug: (t) => ({ y: 9 * Math.sin(Math.PI * t), turn: 6 * Math.sin(Math.PI * t) }),
  sway: (t) => ({ x: 6 * Math.sin(2 * Math.PI * t), turn: 3 * Math.sin(2 * Math.PI * t) }),
};

/** @type {[RegExp, string][]} */
const WORDS = [
  [/nod|agree|끄덕/i, "nod"],
  [/shak|refus|deny|젓|가로/i, "shake"],
  [/bow|curts|인사|절|숙/i, "bow"],
  [/tilt|think|ponder|wonder|갸웃|생각/i, "tilt"],
  [/laugh|chuckle|giggle|grin|웃/i, "laugh"],
  [/shrug|sigh|으쓱|한숨/i, "shrug"],
];

/**
 * The movement for a gesture's name: by the word in it, else a small sway.
 * @param {string} gesture
 * @returns {(t: number) => {turn?: number, x?: number, y?: number}}
 */
export function movementOf(gesture) {
  const found = WORDS.find(([word]) => word.test(gesture));
  return MOVES[found?.[1] ?? "sway"];
}
