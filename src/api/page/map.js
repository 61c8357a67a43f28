// The document as a map: its text in rows from start to end, with the passages of an answer lit.
//
// Rows are drawn on a canvas; passages are buttons above it, so that they can be reached and named.
// Between both lies a slider: a click or an arrow key there chooses a place to read.

import { el } from "./dom.js";
import { percent } from "./words.js";

const ROW = { pitch: 12, height: 4 };
const ROWS = { fewest: 3, most: 10 };
// Ink is drawn in dashes, the longer the denser: from afar, lines of words look like that.
const DASH = { least: 2, most: 18, gap: 2 };
const LAMP = { least: 6, most: 11 };
// So many bytes a pixel at most show single words; with fewer rows a short text looks empty.
const BYTES_PER_PIXEL = 2.5;
const LEAST_WIDTH = 8;
const STEPS = {
  ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -10, PageDown: 10,
};

export class DocumentMap {
  #section;
  #total = 0;
  #rows = 0;
  #ink = null;
  #read = 1;
  #evidence = [];
  #selected = -1;
  #window = null;

  /** `onPassage(index)` and `onPlace(byte)` are told what was chosen. */
  constructor(section, { onPassage, onPlace, signal }) {
    this.#section = section;
    this.onPassage = onPassage;
    const place = this.#part(".place");
    place.addEventListener("click", (event) => onPlace(this.#byteAt(event)));
    place.addEventListener("keydown", (event) => this.#step(event, onPlace));
    const observer = new ResizeObserver(() => this.#lay());
    observer.observe(this.#part(".sheet"));
    signal.addEventListener("abort", () => observer.disconnect());
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", () => this.#draw(), { signal });
  }

  /** The length of the text, and its ink (see ink.js) where it is known. */
  setText({ bytes, ink = this.#ink }) {
    if (bytes === this.#total && ink === this.#ink) return;
    this.#total = bytes;
    this.#ink = ink;
    this.#lay();
  }

  /** How much has been read, 0..1: what has not is faint. */
  setRead(share) {
    if (share === this.#read) return;
    this.#read = share;
    this.#draw();
  }

  /** The passages to light. */
  setEvidence(evidence) {
    this.#evidence = evidence;
    this.#selected = -1;
    this.#light();
  }

  /** Marks one passage as the one that is being read. */
  select(index) {
    this.#selected = index;
    for (const lamp of this.#section.querySelectorAll(".lamp")) {
      const chosen = Number(lamp.dataset.index) === index;
      lamp.classList.toggle("chosen", chosen);
      if (lamp.localName === "button") lamp.setAttribute("aria-pressed", String(chosen));
    }
  }

  /** Lets a passage stand out while something else points at it. */
  hint(index) {
    for (const lamp of this.#section.querySelectorAll(".lamp")) {
      lamp.classList.toggle("hinted", Number(lamp.dataset.index) === index);
    }
  }

  /** Where the reader is: `{ start, end }` in bytes. */
  setWindow(window) {
    this.#window = window;
    const place = this.#part(".place");
    const share = this.#total ? window.start / this.#total : 0;
    place.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    place.setAttribute("aria-valuetext", `${percent(share)} into the text`);
    this.#draw();
  }

  #part(selector) {
    return this.#section.querySelector(selector);
  }

  #lay() {
    const width = this.#part(".sheet").clientWidth;
    if (!width || !this.#total) return;
    const wanted = Math.ceil(this.#total / (width * BYTES_PER_PIXEL));
    this.#rows = Math.min(ROWS.most, Math.max(ROWS.fewest, wanted));
    this.#part(".sheet").style.blockSize = `${this.#rows * ROW.pitch}px`;
    this.#draw();
    this.#light();
  }

  #draw() {
    const canvas = this.#part("canvas");
    const { clientWidth: width } = this.#part(".sheet");
    if (!width || !this.#rows) return;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(this.#rows * ROW.pitch * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.#section);
    this.#drawInk(pen, width, style);
    if (this.#window) this.#drawWindow(pen, width, style.getPropertyValue("--accent"));
  }

  #drawInk(pen, width, style) {
    pen.fillStyle = style.getPropertyValue("--map-ink");
    for (let row = 0; row < this.#rows; row += 1) {
      const top = row * ROW.pitch + (ROW.pitch - ROW.height) / 2;
      for (let x = 0; x < width;) {
        const at = (row + x / width) / this.#rows;
        const ink = this.#inkAt(at, at + 2 / width / this.#rows);
        const length = Math.min(DASH.least + (DASH.most - DASH.least) * ink, width - x);
        pen.globalAlpha = at < this.#read ? 0.45 + 0.55 * ink : 0.22;
        pen.fillRect(x, top, length, ROW.height);
        x += length + DASH.gap;
      }
    }
    pen.globalAlpha = 1;
  }

  #inkAt(from, to) {
    if (!this.#ink) return 0.7;
    const first = Math.floor(from * this.#ink.length);
    const last = Math.max(first + 1, Math.floor(to * this.#ink.length));
    let sum = 0;
    for (let i = first; i < last; i += 1) sum += this.#ink[i];
    return sum / (last - first);
  }

  #drawWindow(pen, width, colour) {
    pen.fillStyle = colour;
    for (const { row, left, right } of this.#pieces(this.#window)) {
      const length = Math.max((right - left) * width, LEAST_WIDTH);
      const x = Math.min(left * width, width - length);
      pen.fillRect(x, (row + 1) * ROW.pitch - 1.5, length, 1.5);
    }
  }

  /** The parts of a span that lie in single rows; `left` and `right` are shares of a row. */
  #pieces({ start, end }) {
    const [from, to] = [start, end].map((byte) => (byte / this.#total) * this.#rows);
    const pieces = [];
    for (let row = Math.floor(from); row < Math.min(Math.ceil(to), this.#rows); row += 1) {
      pieces.push({ row, left: Math.max(from - row, 0), right: Math.min(to - row, 1) });
    }
    return pieces;
  }

  #light() {
    if (!this.#rows) return;
    const most = Math.max(...this.#evidence.map((span) => span.weight), Number.MIN_VALUE);
    // In the order of the text, as one would tab through it.
    const order = this.#evidence.map((span, index) => ({ span, index }))
      .sort((a, b) => a.span.start - b.span.start);
    this.#part(".spans").replaceChildren(...order.map(({ span, index }) =>
      el("li", {}, ...this.#lamps(span, index, span.weight / most))));
    this.select(this.#selected);
  }

  // The longest piece of a passage is its button; pieces in other rows only shine.
  #lamps(span, index, brightness) {
    const pieces = this.#pieces(span).sort((a, b) => b.right - b.left - (a.right - a.left));
    return pieces.map((piece, rank) => {
      const tag = rank === 0 ? "button" : "span";
      const onclick = () => this.onPassage(index);
      const lamp = el(tag, { class: "lamp", "data-index": index, onclick });
      if (rank === 0) {
        lamp.type = "button";
        lamp.title = this.#label(span, index);
        lamp.setAttribute("aria-label", lamp.title);
      }
      const height = LAMP.least + (LAMP.most - LAMP.least) * brightness;
      lamp.style.blockSize = `${height}px`;
      lamp.style.insetBlockStart = `${piece.row * ROW.pitch + (ROW.pitch - height) / 2}px`;
      lamp.style.insetInlineStart = `min(${piece.left * 100}%, 100% - ${LEAST_WIDTH}px)`;
      lamp.style.inlineSize = `max(${(piece.right - piece.left) * 100}%, ${LEAST_WIDTH}px)`;
      lamp.style.zIndex = String(this.#evidence.length - index);
      lamp.style.setProperty("--brightness", brightness.toFixed(3));
      return lamp;
    });
  }

  #label(span, index) {
    const of = `Passage ${index + 1} of ${this.#evidence.length}`;
    const at = percent(span.start / this.#total);
    return `${of}: ${percent(span.weight)} of the weight, ${at} into the text`;
  }

  #byteAt(event) {
    const box = this.#part(".sheet").getBoundingClientRect();
    const row = Math.floor((event.clientY - box.top) / ROW.pitch);
    const share = (event.clientX - box.left) / box.width;
    return this.#bounded(((row + share) / this.#rows) * this.#total);
  }

  #step(event, onPlace) {
    const now = this.#window?.start ?? 0;
    const hundredth = this.#total / 100;
    const places = { Home: 0, End: this.#total };
    const to = places[event.key] ?? (STEPS[event.key] && now + STEPS[event.key] * hundredth);
    if (to === undefined) return;
    event.preventDefault();
    onPlace(this.#bounded(to));
  }

  #bounded(byte) {
    return Math.round(Math.min(Math.max(byte, 0), Math.max(this.#total - 1, 0)));
  }
}
