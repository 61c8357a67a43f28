// The list of contexts beside everything: open, pin, fork, delete.

import { fork, remove, togglePin } from "./actions.js";
import { el, icon, iconButton } from "./dom.js";
import { showError } from "./errors.js";
import { library } from "./library.js";
import { addressOf, shownId } from "./route.js";
import { inBrief, isReading, shareRead, title } from "./words.js";

const WHILE_READING_MS = 3000;
const part = (id) => document.getElementById(id);
let timer = null;

/** Shows the list, and keeps it as the server has it. */
export function startShelf() {
  library.addEventListener("change", show);
  part("items-more").addEventListener("click", () => library.loadMore());
  // Others change the list too; whoever comes back to this window wants to see it as it is.
  window.addEventListener("focus", () => library.refresh());
  part("menu").addEventListener("click", () => setOpen(!isOpen()));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !isOpen()) return;
    setOpen(false);
    part("menu").focus();
  });
}

/** On a phone the list lies behind a button. */
export function closeShelf() {
  setOpen(false);
}

/** Marks the item that is open now. */
export function markShown() {
  for (const link of part("items").querySelectorAll("a")) {
    if (link.dataset.id === shownId()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

const isOpen = () => part("menu").getAttribute("aria-expanded") === "true";

function setOpen(open) {
  part("menu").setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("shelf-open", open);
}

function show() {
  const { contexts, error, hasMore } = library;
  part("items-more").hidden = !hasMore;
  part("items-empty").hidden = contexts.length > 0 || error !== null;
  showItems(contexts, error);
  markShown();
  clearTimeout(timer);
  if (contexts.some(isReading)) timer = setTimeout(() => library.refresh(), WHILE_READING_MS);
}

function showItems(contexts, error) {
  const list = part("items");
  const focused = focusWithin(list);
  list.replaceChildren(...contexts.map(item));
  if (error) {
    const place = el("li", { class: "notices" });
    showError(place, error, () => library.refresh());
    list.prepend(place);
  }
  focused && list.querySelector(focused)?.focus();
}

// The list is built anew at each change, which must not throw anyone's focus out of it.
function focusWithin(list) {
  const { active = document.activeElement } = {};
  if (!list.contains(active) || !active.dataset.id) return null;
  return `[data-id="${CSS.escape(active.dataset.id)}"][data-part="${active.dataset.part}"]`;
}

function item(context) {
  const name = title(context);
  const link = el("a", { href: addressOf(context.id), "data-id": context.id, "data-part": "open" },
    el("span", { class: "item-title" }, name),
    el("span", { class: "item-facts" },
      context.pinned ? icon("pin") : null,
      context.forked_from ? icon("fork") : null, inBrief(context)));
  const place = el("div", { class: "notices" });
  const act = (part, act) => ({ part, run: () => act(context).catch((e) => showError(place, e)) });
  const pin = context.pinned ? `Unpin ${name}` : `Pin ${name}`;
  const row = el("li", { class: "item", "data-status": context.status }, link,
    el("div", { class: "item-actions" },
      button("pin", pin, act("pin", togglePin), context, String(context.pinned)),
      context.status === "ready"
        ? button("fork", `Fork ${name}`, act("fork", fork), context) : null,
      button("trash", `Delete ${name}`, act("delete", remove), context)),
    isReading(context) ? bar(context) : null, place);
  return row;
}

function button(picture, label, { part, run }, context, pressed = null) {
  const more = { "data-id": context.id, "data-part": part, "aria-pressed": pressed };
  return iconButton(picture, label, run, more);
}

function bar(context) {
  const fill = el("i");
  fill.style.inlineSize = `${(shareRead(context) ?? 0) * 100}%`;
  return el("div", { class: "bar", "aria-hidden": true }, fill);
}
