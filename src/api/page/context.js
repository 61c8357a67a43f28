// The view of one context: its map, its text, its questions, or how far its reading is.

import { fork, remove, togglePin } from "./actions.js";
import { getContext } from "./api.js";
import { announce, clone, el } from "./dom.js";
import { ApiError, showError } from "./errors.js";
import { inkOf } from "./ink.js";
import { library } from "./library.js";
import { DocumentMap } from "./map.js";
import { Reader } from "./reader.js";
import { Meter, watch } from "./readings.js";
import { resumeAddressOf } from "./route.js";
import { Talk } from "./talk.js";
import {
  count, duration, inFull, isReading, perSecond, percent, shareRead, title,
} from "./words.js";

// A screen reader should hear of a reading, not be talked over by it.
const ANNOUNCE_EVERY = 0.1;
const isWide = () => matchMedia("(min-width: 60rem)").matches;

/** Shows a context in `main` until `signal` is aborted. */
export async function showContext(main, id, signal) {
  // Until the new view is there nobody should act on the one before.
  main.inert = true;
  try {
    const context = await getContext(id, signal);
    if (signal.aborted) return;
    main.inert = false;
    library.put(context);
    new ContextView(main, context, signal).start();
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    main.inert = false;
    const place = el("div", { class: "notices alone" });
    main.replaceChildren(el("h1", { class: "unseen" }, "A document that cannot be shown"), place);
    showError(place, error, () => showContext(main, id, signal));
  }
}

class ContextView {
  #page = clone("t-context");
  #context;
  #signal;
  #map;
  #reader;
  #talk;
  #lit = null;
  #announced = 0;
  #troubleOf = null;

  constructor(main, context, signal) {
    this.#context = context;
    this.#signal = signal;
    main.replaceChildren(this.#page);
    this.#map = new DocumentMap(this.#part(".map"), {
      signal,
      onPassage: (index) => this.#openPassage(this.#lit, index),
      onPlace: (byte) => this.#openPlace(byte),
    });
    this.#reader = new Reader(this.#part(".reader"), {
      context, signal,
      onWindow: (window) => this.#map.setWindow(window),
      onPassage: (index) => this.#readPassage(this.#lit, index),
    });
    this.#talk = new Talk(this.#part(".talk"), {
      context, signal,
      onPassage: (turn, index) => this.#openPassage(turn, index),
      onHint: (index) => this.#map.hint(index),
      onAnswered: (turn) => this.#answered(turn),
    });
    this.#listen();
  }

  start() {
    this.#show();
    this.#page.querySelector("h1").focus({ preventScroll: true });
    if (isReading(this.#context)) this.#follow();
    else this.#showText();
  }

  #part(selector) {
    return this.#page.querySelector(selector);
  }

  #listen() {
    const acts = { ".pin": togglePin, ".fork": fork, ".delete": remove };
    for (const [selector, act] of Object.entries(acts)) {
      this.#part(selector).addEventListener("click", () =>
        act(this.#context).catch((error) => this.#fail(error)));
    }
    // The list beside may pin it, rename it or find it further than it was.
    library.addEventListener("change", () => {
      const known = library.get(this.#context.id);
      if (!known || known.status !== this.#context.status) return;
      this.#context = known;
      this.#show();
    }, { signal: this.#signal });
  }

  #fail(error, again = null) {
    if (error.name !== "AbortError") showError(this.#part(".talk .notices"), error, again);
  }

  #show() {
    const context = this.#context;
    document.title = `${title(context)} – mneme`;
    this.#part("h1").textContent = title(context);
    this.#part(".facts").textContent = inFull(context);
    this.#part(".pin").setAttribute("aria-pressed", String(context.pinned));
    this.#part(".pin span").textContent = context.pinned ? "Pinned" : "Pin";
    Object.assign(this.#page.dataset, { id: context.id, status: context.status });
    this.#part(".reading").hidden = !isReading(context);
    this.#part(".fork").disabled = context.status !== "ready";
    this.#part(".legend-words").textContent = isReading(context) ? "fills as it is read"
      : "click anywhere to read there";
    const askable = context.status === "ready" || context.status === "stopped";
    this.#talk.setContext(context, { askable });
    this.#map.setText({ bytes: context.text_bytes });
    this.#map.setRead(shareRead(context) ?? 0);
    this.#reader.context = context;
    this.#showTrouble();
  }

  #showTrouble() {
    const { status, error, id } = this.#context;
    const place = this.#part(".talk .notices");
    if (status === this.#troubleOf) return;
    this.#troubleOf = status;
    if (status === "failed") showError(place, ApiError.fromBody({ error }, { status: 200 }));
    if (status !== "stopped") return;
    place.replaceChildren(el("div", { class: "notice calm" },
      el("div", {},
        el("p", { class: "notice-message" }, "Only a part has been read: reading was stopped."),
        el("a", { class: "plain", href: resumeAddressOf(id) }, "Go on reading"))));
  }

  // Until the reading ends; an error on the way leaves the view as it is, with a way to go on.
  async #follow() {
    const meter = new Meter();
    const watched = watch(this.#context.id, (news) => this.#progress(news, meter), this.#signal);
    try {
      const context = await watched;
      if (!context) return;
      this.#context = context;
      library.put(context);
      this.#show();
      announce(context.status === "ready" ? "It has been read and can be asked" : "Reading ended");
      this.#showText();
      if (context.status === "ready") this.#talk.focus();
    } catch (error) {
      this.#fail(error, () => this.#follow());
    }
  }

  #progress({ tokens, total_tokens: total }, meter) {
    meter.add(tokens);
    const share = total ? Math.min(1, tokens / total) : null;
    const left = meter.secondsLeft(total);
    const words = [
      total ? `${count(tokens)} of ${count(total)} tokens` : `${count(tokens)} tokens`,
      meter.rate ? `${perSecond(meter.rate)} tokens/s` : null,
      left === null ? null : `${duration(left)} left`,
    ].filter(Boolean).join(" · ");
    this.#part(".reading-share").textContent = share === null ? "Reading" : percent(share);
    this.#part(".reading-words").textContent = words;
    this.#showBar(share);
    this.#map.setRead(share ?? 0);
    if (share !== null && share - this.#announced < ANNOUNCE_EVERY) return;
    this.#announced = share ?? 0;
    announce(`Reading: ${words}`);
  }

  #showBar(share) {
    const bar = this.#part(".reading .bar");
    bar.classList.toggle("unknown", share === null);
    bar.querySelector("i").style.inlineSize = `${(share ?? 0) * 100}%`;
    if (share === null) bar.removeAttribute("aria-valuenow");
    else bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  }

  // The start of the text and its look on the map, or what the last answer lit.
  async #showText() {
    if (!this.#context.text_bytes) return;
    const last = this.#talk.lastToLight;
    if (last) this.#present(last);
    if (last && isWide()) this.#talk.scrollTo(last);
    else this.#reader.showPlace(0);
    try {
      const ink = await inkOf(this.#context, this.#signal);
      this.#map.setText({ bytes: this.#context.text_bytes, ink });
    } catch {
      // A map without ink is still a map; the reader tells what is wrong with the text.
    }
  }

  async #answered(turn) {
    if (this.#context.kind === "conversation") await this.#grow();
    if (!this.#signal.aborted) this.#present(turn);
  }

  // Where the text lies beside the answer, its weightiest passage is opened there.
  #present(turn) {
    this.#light(turn);
    if (isWide() && turn.evidence.length) this.#readPassage(turn, 0);
  }

  // What was said belongs to the text of a conversation now.
  async #grow() {
    try {
      this.#context = await getContext(this.#context.id, this.#signal);
      library.put(this.#context);
      this.#show();
    } catch (error) {
      this.#fail(error);
    }
  }

  #light(turn) {
    this.#lit = turn;
    this.#map.setEvidence(turn.evidence);
    this.#reader.setEvidence(turn.evidence);
    this.#talk.light(turn);
  }

  #openPassage(turn, index) {
    this.#readPassage(turn, index);
    this.#reader.open();
  }

  #readPassage(turn, index) {
    if (turn !== this.#lit) this.#light(turn);
    this.#map.select(index);
    this.#talk.select(index);
    this.#reader.showPassage(turn.evidence, index);
  }

  // The focus stays on the map: with the arrow keys one moves on from there.
  #openPlace(byte) {
    this.#map.select(-1);
    this.#talk.select(-1);
    this.#reader.showPlace(byte);
    this.#part(".reader").classList.add("open");
  }
}
