// How one question, its answer and its evidence are shown.

import { setAnswer } from "./answer.js";
import { clone, el } from "./dom.js";
import { ApiError, showError } from "./errors.js";
import { count, percent, perSecond, some } from "./words.js";

const FIRST_PASSAGES = 4;
const SNIPPET = 160;

/**
 * A turn on the page. What it shows is plain data (see history.js): change it, then `update()`.
 * `onPassage(index)` is told which passage was chosen, `onHint(index)` which is pointed at.
 */
export class TurnView {
  #turn;
  #frame = 0;

  constructor(turn, { onPassage, onHint, onRetry }) {
    Object.assign(this, { onPassage, onHint, onRetry });
    this.#turn = turn;
    this.node = clone("t-turn");
    this.#part(".question").textContent = turn.question;
    this.update();
  }

  /** Shows the turn as it is now, at most once a frame. */
  update() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#show();
    });
  }

  /** Whether this is the turn whose evidence is on the map. */
  setLit(lit) {
    this.node.classList.toggle("lit", lit);
  }

  /** Marks the passage that is being read. */
  select(index) {
    for (const button of this.node.querySelectorAll(".evidence ol button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.index) === index));
    }
  }

  #part(selector) {
    return this.node.querySelector(selector);
  }

  #show() {
    const { state, answer, progress, error } = this.#turn;
    const isOver = !["waiting", "answering"].includes(state);
    this.node.dataset.state = state;
    this.#part(".answer").setAttribute("aria-busy", String(!isOver));
    this.#part(".answer").replaceChildren(...setAnswer(answer));
    this.#part(".waiting").hidden = state !== "waiting";
    this.#part(".waiting-words").textContent = progress;
    if (!isOver) return;
    if (state === "failed") {
      showError(this.#part(".notices"), ApiError.fromBody({ error }, error), this.onRetry);
    }
    this.#showEvidence();
    this.#part(".usage").textContent = usageWords(this.#turn);
  }

  #showEvidence() {
    const section = this.#part(".evidence");
    const { evidence } = this.#turn;
    const list = section.querySelector("ol");
    if (evidence.length === 0 || list.childElementCount > 0) return;
    const most = Math.max(...evidence.map((span) => span.weight));
    section.hidden = false;
    section.querySelector("h4").textContent = `Attended to ${some(evidence.length, "passage")}`;
    list.replaceChildren(...evidence.map((span, index) => this.#passage(span, index, most)));
    const rest = section.querySelector(".all");
    const hidden = [...list.children].slice(FIRST_PASSAGES);
    if (hidden.length < 2) return;
    for (const item of hidden) item.hidden = true;
    rest.hidden = false;
    rest.textContent = some(hidden.length, "more passage");
    rest.addEventListener("click", () => {
      for (const item of hidden) item.hidden = false;
      rest.hidden = true;
      hidden[0].querySelector("button").focus();
    });
  }

  #passage(span, index, most) {
    const fill = el("i");
    fill.style.inlineSize = `${(span.weight / most) * 100}%`;
    const snippet = span.text.replace(/\s+/g, " ").trim().slice(0, SNIPPET);
    return el("li", {}, el("button", {
      type: "button", "data-index": index, "aria-pressed": "false",
      onclick: () => this.onPassage(index),
      onpointerenter: () => this.onHint(index),
      onpointerleave: () => this.onHint(-1),
    },
    el("span", { class: "weight", "aria-hidden": "true" }, fill),
    el("span", { class: "share" }, percent(span.weight)),
    el("span", { class: "snippet" }, snippet)));
  }
}

function usageWords({ state, usage, seconds, finish }) {
  const words = [];
  if (state === "stopped") words.push("stopped");
  if (finish === "length") words.push("cut off at the longest answer");
  if (usage) {
    const { completion_tokens: said, prompt_tokens_details: details } = usage;
    words.push(`${some(said, "token")} in ${seconds.toFixed(1)} s`);
    if (said > 1) words.push(`${perSecond(said / seconds)} tokens/s`);
    const known = details?.cached_tokens ?? 0;
    if (known) words.push(`${count(known)} tokens were read before`);
  }
  return words.join(" · ");
}
