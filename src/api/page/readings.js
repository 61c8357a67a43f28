// How far a document has been read: by the stream that this page began, else by asking again.

import { getContext, readContext } from "./api.js";
import { pause } from "./dom.js";
import { isReading } from "./words.js";

const POLL_MS = 1000;
const RATE_SECONDS = 10;

// The readings that this page began and whose stream still speaks: by id of the context.
const followed = new Map();

/** Begins to read a document. Resolves with its context's id as soon as the server names it. */
export async function begin(body) {
  const stream = await readContext(body);
  let id = null;
  while (id === null) {
    const { value, done } = await stream.next();
    if (done) throw new Error("The server named no context.");
    id = value.data?.id ?? null;
  }
  const updates = new EventTarget();
  followed.set(id, updates);
  relay(stream, id, updates);
  return id;
}

// What goes wrong on the way is not told here: whoever watches asks the server how it is then.
async function relay(stream, id, updates) {
  try {
    for await (const { data } of stream) {
      if (data?.object !== "context.progress") continue;
      updates.dispatchEvent(new CustomEvent("progress", { detail: data }));
    }
  } catch {
    // The connection broke off, or the reading failed: the context knows.
  }
  followed.delete(id);
  updates.dispatchEvent(new Event("end"));
}

/**
 * Watches a context until it is read no more, and returns it as it is then (null when aborted).
 * `onProgress` gets `{ tokens, total_tokens }` as often as there is news.
 */
export async function watch(id, onProgress, signal) {
  const updates = followed.get(id);
  if (updates) await follow(updates, onProgress, signal);
  while (!signal.aborted) {
    const context = await getContext(id, signal);
    if (!isReading(context)) return context;
    onProgress(context);
    await pause(POLL_MS, signal);
  }
  return null;
}

function follow(updates, onProgress, signal) {
  updates.addEventListener("progress", (event) => onProgress(event.detail), { signal });
  return new Promise((resolve) => {
    updates.addEventListener("end", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** The speed of a reading over its last seconds. */
export class Meter {
  #samples = [];

  add(tokens, seconds = performance.now() / 1000) {
    this.#samples.push({ tokens, seconds });
    const oldest = seconds - RATE_SECONDS;
    while (this.#samples.length > 2 && this.#samples[0].seconds < oldest) this.#samples.shift();
  }

  /** Tokens a second; null until there is something to measure. */
  get rate() {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (!first || last.seconds - first.seconds < 0.3) return null;
    return (last.tokens - first.tokens) / (last.seconds - first.seconds);
  }

  /** Seconds until `total` tokens are read; null where nobody can say. */
  secondsLeft(total) {
    const { rate } = this;
    if (!rate || !total) return null;
    return Math.max(0, total - this.#samples.at(-1).tokens) / rate;
  }
}
