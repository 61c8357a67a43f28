// The text of the document around one place: the passages marked, more of it on demand.

import { getText } from "./api.js";
import { announce, el } from "./dom.js";
import { showError } from "./errors.js";
import { flowing, setting } from "./prose.js";
import { percent } from "./words.js";

const AROUND_BYTES = 1500;
const STEP_BYTES = 3000;
// At the very end of a text there would be nothing to read: so much of it is shown at least.
const LAST_BYTES = 600;
// A piece of text should not begin in the middle of a word: so far a space is looked for.
const TRIM_BYTES = 120;
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const isSpace = (byte) => byte === 0x20 || byte === 0x0a;

export class Reader {
  #section;
  #context;
  #signal;
  #evidence = [];
  #selected = -1;
  #start = 0;
  #bytes = new Uint8Array();
  #opener = null;
  #latest = 0;

  /** `onWindow({ start, end })` is told what is shown, `onPassage(index)` what was stepped to. */
  constructor(section, { context, onWindow, onPassage, signal }) {
    Object.assign(this, { onWindow });
    this.#section = section;
    this.#context = context;
    this.#signal = signal;
    this.#part(".back").addEventListener("click", () => onPassage(this.#selected - 1));
    this.#part(".next").addEventListener("click", () => onPassage(this.#selected + 1));
    this.#part(".close").addEventListener("click", () => this.close());
    this.#part(".earlier").addEventListener("click", () => this.#earlier());
    this.#part(".later").addEventListener("click", () => this.#later());
    section.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  /** The context as it is now: a conversation grows. */
  set context(context) {
    this.#context = context;
  }

  /** Shows passage `index` of an answer's evidence. */
  async showPassage(evidence, index) {
    this.#evidence = evidence;
    this.#selected = index;
    const span = evidence[index];
    const name = `Passage ${index + 1} of ${evidence.length}`;
    this.#title(name, `${percent(span.weight)} of the weight · ${this.#at(span.start)}`);
    await this.#load(span.start - AROUND_BYTES, span.end + AROUND_BYTES);
    this.#section.querySelector("mark.chosen")?.scrollIntoView({ block: "center" });
    announce(`${name}: ${span.text.slice(0, 300)}`);
  }

  /** Shows the text from a byte on. */
  async showPlace(byte) {
    const start = Math.max(0, Math.min(byte, this.#context.text_bytes - LAST_BYTES));
    this.#selected = -1;
    this.#title("The text", this.#at(start));
    await this.#load(start, start + 2 * AROUND_BYTES);
    this.#part(".pages").scrollTop = 0;
  }

  /** Brings it to the front, where it lies over the page, and takes the focus. */
  open() {
    if (!this.#section.contains(document.activeElement)) this.#opener = document.activeElement;
    this.#section.classList.add("open");
    this.#part(".pages").focus({ preventScroll: true });
  }

  /** Goes back to where one came from. */
  close() {
    this.#section.classList.remove("open");
    this.#opener?.focus();
    this.#opener = null;
  }

  /** Marks other passages from now on. */
  setEvidence(evidence) {
    this.#evidence = evidence;
    this.#selected = -1;
    this.#show();
  }

  #part(selector) {
    return this.#section.querySelector(selector);
  }

  #at(byte) {
    if (byte === 0) return "from the start";
    return `${percent(byte / this.#context.text_bytes)} into the text`;
  }

  #title(words, facts) {
    this.#section.hidden = false;
    this.#part("h2").textContent = words;
    this.#part(".reader-facts").textContent = facts;
    this.#part(".back").disabled = this.#selected <= 0;
    this.#part(".next").disabled = this.#selected < 0
      || this.#selected >= this.#evidence.length - 1;
  }

  // What was asked for last is shown, even where an older reply comes later.
  async #load(from, to) {
    const total = this.#context.text_bytes;
    const span = { start: Math.max(0, Math.floor(from)), end: Math.min(total, Math.ceil(to)) };
    this.#latest += 1;
    const mine = this.#latest;
    const piece = await this.#fetch(span);
    if (!piece || mine !== this.#latest) return;
    this.#bytes = piece.bytes;
    this.#start = piece.start;
    this.#trimStart();
    this.#trimEnd();
    this.#show();
  }

  async #fetch(span) {
    try {
      const piece = await getText(this.#context.id, span, this.#signal);
      return { start: piece.start, bytes: new TextEncoder().encode(piece.text) };
    } catch (error) {
      if (error.name !== "AbortError") showError(this.#part(".passage"), error);
      return null;
    }
  }

  async #earlier() {
    const pages = this.#part(".pages");
    const below = pages.scrollHeight - pages.scrollTop;
    const start = Math.max(0, this.#start - STEP_BYTES);
    const piece = await this.#fetch({ start, end: this.#start });
    if (!piece) return;
    this.#bytes = joined(piece.bytes, this.#bytes);
    this.#start = piece.start;
    this.#trimStart();
    this.#show();
    // The words that were in view stay where they were.
    pages.scrollTop = pages.scrollHeight - below;
  }

  async #later() {
    const from = this.#start + this.#bytes.length;
    const end = Math.min(this.#context.text_bytes, from + STEP_BYTES);
    const piece = await this.#fetch({ start: from, end });
    if (!piece) return;
    this.#bytes = joined(this.#bytes, piece.bytes);
    this.#trimEnd();
    this.#show();
  }

  #trimStart() {
    if (this.#start === 0) return;
    const cut = this.#bytes.subarray(0, TRIM_BYTES).findIndex(isSpace) + 1;
    this.#bytes = this.#bytes.subarray(cut);
    this.#start += cut;
  }

  #trimEnd() {
    if (this.#start + this.#bytes.length >= this.#context.text_bytes) return;
    const tail = Math.max(0, this.#bytes.length - TRIM_BYTES);
    const cut = this.#bytes.subarray(tail).findLastIndex(isSpace);
    if (cut >= 0) this.#bytes = this.#bytes.subarray(0, tail + cut);
  }

  #show() {
    const end = this.#start + this.#bytes.length;
    this.#part(".earlier").hidden = this.#start === 0;
    this.#part(".later").hidden = end >= this.#context.text_bytes;
    const text = decoder.decode(this.#bytes);
    const passage = this.#part(".passage");
    passage.dataset.setting = setting(text);
    const isWrapped = passage.dataset.setting === "wrapped";
    const shown = isWrapped ? new TextEncoder().encode(flowing(text)) : this.#bytes;
    passage.replaceChildren(...this.#pieces(shown).map(({ words, chosen, marked }) =>
      (marked ? el("mark", { class: chosen && "chosen" }, words) : words)));
    if (this.#bytes.length) this.onWindow({ start: this.#start, end });
  }

  // The text cut wherever a passage begins or ends: passages may overlap.
  #pieces(bytes) {
    const end = this.#start + bytes.length;
    const borders = this.#evidence.flatMap((span) => [span.start, span.end])
      .filter((byte) => byte > this.#start && byte < end);
    const cuts = [...new Set([this.#start, ...borders, end])].sort((a, b) => a - b);
    const chosen = this.#evidence[this.#selected];
    return cuts.slice(0, -1).map((from, i) => ({
      words: decoder.decode(bytes.subarray(from - this.#start, cuts[i + 1] - this.#start)),
      chosen: chosen !== undefined && covers(chosen, from),
      marked: this.#evidence.some((span) => covers(span, from)),
    }));
  }
}

const covers = (span, byte) => span.start <= byte && byte < span.end;

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}
