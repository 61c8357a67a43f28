// The questions asked of one context, and the answers as they come.

import { chat } from "./api.js";
import { announce, setIcon } from "./dom.js";
import { keep, recall } from "./history.js";
import { TurnView } from "./turn.js";
import { count, some } from "./words.js";

// The likeliest words, so that the same question gets the same answer; long enough for any.
const SAMPLING = { temperature: 0, max_tokens: 1024 };

// What a stream says while the question is read: other comments only keep it open.
const READING = /^reading (\d+)\/(\d+)$/;

export class Talk {
  #section;
  #context;
  #turns;
  #views = [];
  #lit = null;
  #asking = null;
  #askable = true;

  /**
   * `onLight(turn)` is told whose evidence is to be seen, `onPassage(turn, index)` which passage
   * of it is to be read, `onHint(index)` which one is pointed at.
   */
  constructor(section, { context, onLight, onPassage, onHint, onAnswered, signal }) {
    Object.assign(this, { onLight, onPassage, onHint, onAnswered });
    this.#section = section;
    this.#context = context;
    this.#turns = recall(context.id).map(ended);
    for (const turn of this.#turns) this.#add(turn);
    this.#listen(signal);
    this.#showHint();
  }

  /** The last turn with evidence to see, if there is one. */
  get lastToLight() {
    return this.#turns.findLast((turn) => turn.evidence.length > 0) ?? null;
  }

  /** The context as it is now; it can be asked or not. */
  setContext(context, { askable }) {
    this.#context = context;
    this.#part("textarea").disabled = !askable;
    this.#part(".send").disabled = !askable;
    const hopeless = context.status === "failed";
    this.#part("textarea").placeholder = askable ? "Ask about this document"
      : hopeless ? "It could not be read" : "It can be asked when it has been read";
    this.#askable = askable;
    this.#showHint();
  }

  focus() {
    this.#part("textarea").focus({ preventScroll: true });
  }

  /** Brings a turn into sight. */
  scrollTo(turn) {
    const { node } = this.#views[this.#turns.indexOf(turn)];
    requestAnimationFrame(() => node.scrollIntoView({ block: "start" }));
  }

  /** Shows a turn as the one whose evidence is on the map. */
  light(turn) {
    this.#lit = turn;
    this.#views.forEach((view, i) => view.setLit(this.#turns[i] === turn));
  }

  select(index) {
    this.#views.forEach((view, i) => view.select(this.#turns[i] === this.#lit ? index : -1));
  }

  #part(selector) {
    return this.#section.querySelector(selector);
  }

  #listen(signal) {
    const field = this.#part("textarea");
    this.#part(".composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#asking) this.#asking.abort();
      else this.#submit();
    });
    field.addEventListener("keydown", (event) => {
      // Enter that ends a word of an input method is not meant for us.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#asking) this.#submit();
    });
    field.addEventListener("input", () => this.#fit());
    const stop = (event) => event.key === "Escape" && this.#asking?.abort();
    document.addEventListener("keydown", stop, { signal });
    signal.addEventListener("abort", () => this.#asking?.abort());
  }

  // As high as what is typed, up to what the style allows.
  #fit() {
    const field = this.#part("textarea");
    field.style.blockSize = "auto";
    field.style.blockSize = `${field.scrollHeight}px`;
  }

  #submit() {
    const field = this.#part("textarea");
    const question = field.value.trim();
    if (!question) return;
    field.value = "";
    this.#fit();
    this.#ask(question);
  }

  async #ask(question) {
    const turn = { question, answer: "", evidence: [], usage: null, finish: null, error: null,
      state: "waiting", progress: "", seconds: 0 };
    this.#turns.push(turn);
    const view = this.#add(turn);
    this.#showHint();
    view.node.scrollIntoView({ block: "nearest" });
    await this.#answer(turn, view);
    view.update();
    keep(this.#context.id, this.#turns);
    this.onAnswered(turn);
  }

  async #answer(turn, view) {
    const began = performance.now();
    this.#asking = new AbortController();
    this.#setAsking(true);
    try {
      const { signal } = this.#asking;
      for await (const event of await chat(this.#body(turn.question), signal)) {
        this.#take(event, turn);
        this.#followDown(() => view.update());
      }
      turn.state = "done";
      announce(`Answered, from ${some(turn.evidence.length, "passage")}`);
    } catch (error) {
      this.#fail(turn, error);
    }
    turn.seconds = (performance.now() - began) / 1000;
    this.#asking = null;
    this.#setAsking(false);
  }

  #body(question) {
    const isConversation = this.#context.kind === "conversation";
    return {
      model: this.#context.model, context: this.#context.id,
      context_mode: isConversation ? "append" : "ask",
      messages: [{ role: "user", content: question }],
      stream: true, stream_options: { include_usage: true }, include_evidence: true, ...SAMPLING,
    };
  }

  #take({ comment, data }, turn) {
    if (comment !== undefined) {
      const [, done, total] = READING.exec(comment) ?? [];
      if (total) turn.progress = `Reading, ${count(done)} of ${count(total)} tokens`;
      return;
    }
    if (data.usage) turn.usage = data.usage;
    const [choice] = data.choices;
    if (!choice) return;
    if (choice.delta?.content) {
      turn.answer += choice.delta.content;
      turn.state = "answering";
    }
    turn.finish = choice.finish_reason ?? turn.finish;
    turn.evidence = choice.evidence ?? turn.evidence;
  }

  #fail(turn, error) {
    if (error.name === "AbortError") {
      turn.state = "stopped";
      announce("Stopped");
      return;
    }
    turn.state = "failed";
    const { message, status, type, code, retryAfter, requestId } = error;
    turn.error = { message, status, type, code, retryAfter, requestId };
  }

  #setAsking(asking) {
    const button = this.#part(".send");
    button.setAttribute("aria-label", asking ? "Stop" : "Ask");
    button.title = asking ? "Stop (Escape)" : "Ask (Enter)";
    button.classList.toggle("stopping", asking);
    setIcon(button, asking ? "stop" : "ask");
  }

  // Whoever reads the end goes along with it; whoever scrolled up is left in peace.
  #followDown(change) {
    const box = this.#part(".scroll");
    const scroller = box.scrollHeight > box.clientHeight ? box : document.scrollingElement;
    const atEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
    change();
    if (atEnd) requestAnimationFrame(() => scroller.scrollTo({ top: scroller.scrollHeight }));
  }

  #add(turn) {
    const view = new TurnView(turn, {
      onPassage: (index) => this.onPassage(turn, index),
      onHint: (index) => this.onHint(turn === this.#lit ? index : -1),
      onRetry: () => {
        this.#part("textarea").value = turn.question;
        this.#submit();
      },
    });
    this.#views.push(view);
    this.#part(".turns").append(view.node);
    return view;
  }

  #showHint() {
    const isConversation = this.#context.kind === "conversation";
    this.#part(".hint").hidden = this.#turns.length > 0 || !this.#askable;
    this.#part(".hint h2").textContent = isConversation ? "Go on talking" : "Ask about it";
    this.#part(".hint p").textContent = isConversation
      ? "This is a conversation: what is said is kept in it, and remembered."
      : "Each question is asked of the document alone: the ones before are not part of it. "
        + "The passages that the answer attended to light up on the map.";
  }
}

// A turn that was still being answered when the page was left will not be any more.
function ended(turn) {
  const isOpen = turn.state === "waiting" || turn.state === "answering";
  return isOpen ? { ...turn, state: "stopped" } : turn;
}
