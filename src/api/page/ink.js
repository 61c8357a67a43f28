// What a text looks like from afar: how dense its letters are, place by place.

import { getText } from "./api.js";

const PIECE = 1 << 20;
// A larger text would cost more to fetch than its picture is worth.
const MOST_BYTES = 8 * PIECE;
const BUCKETS = 1 << 13;
const SPACE = 0x20;

/** The densities 0..1 of a context's text from start to end; null where it is not pictured. */
export async function inkOf({ id, text_bytes: total }, signal) {
  if (!total || total > MOST_BYTES) return null;
  const buckets = Math.min(BUCKETS, total);
  const letters = new Float32Array(buckets);
  for (let start = 0; start < total; start += PIECE) {
    const end = Math.min(total, start + PIECE);
    const piece = await getText(id, { start, end }, signal);
    addLetters(letters, new TextEncoder().encode(piece.text), piece.start / total, total);
  }
  return stretched(letters, total / buckets);
}

function addLetters(letters, bytes, from, total) {
  const scale = letters.length / total;
  const first = from * letters.length;
  for (let i = 0; i < bytes.length; i += 1) {
    if (bytes[i] <= SPACE) continue;
    const bucket = Math.floor(first + i * scale);
    if (bucket < letters.length) letters[bucket] += 1;
  }
}

// Most text is about equally dense. What differs is worth seeing, so it is drawn apart.
function stretched(letters, bytesEach) {
  const sorted = Float32Array.from(letters).sort();
  const low = sorted[Math.floor(sorted.length * 0.02)] * 0.8;
  const high = Math.max(sorted[Math.floor(sorted.length * 0.95)], low + bytesEach * 0.1);
  return letters.map((n) => Math.min(1, Math.max(0, (n - low) / (high - low))));
}
