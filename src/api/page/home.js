// The view for a new document: drop it, choose it or paste it.

import { createContext } from "./api.js";
import { announce, clone } from "./dom.js";
import { showError } from "./errors.js";
import { fromFile, fromPaste } from "./incoming.js";
import { library } from "./library.js";
import { begin } from "./readings.js";
import { goTo } from "./route.js";
import { bytes, title } from "./words.js";

let current = null;

/** Shows the view in `main`. `resumed` is a context whose reading stopped and is to go on. */
export function showHome(main, resumed = null) {
  const page = clone("t-home");
  current = { page, resumed };
  main.inert = false;
  main.replaceChildren(page);
  document.title = "mneme";
  if (resumed) sayWhatResumes(page, resumed);
  page.querySelector(".file").addEventListener("change", (event) => take([...event.target.files]));
  page.querySelector(".paste").addEventListener("click", () => openPaste(""));
  page.querySelector(".pasted").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = page.querySelector("textarea").value;
    if (text.trim()) read([fromPaste(text)]);
  });
}

/** Reads files that were dropped or chosen, wherever that was. */
export async function take(files) {
  if (files.length === 0) return;
  try {
    read(await Promise.all(files.map(fromFile)));
  } catch (error) {
    notice(error);
  }
}

/** Opens the field for pasted text, with `text` in it. */
export function openPaste(text) {
  const { page } = current;
  const form = page.querySelector(".pasted");
  const field = form.querySelector("textarea");
  form.hidden = false;
  page.querySelector(".paste").setAttribute("aria-expanded", "true");
  if (text) field.value = text;
  field.focus();
}

function sayWhatResumes(page, context) {
  page.querySelector("h1").textContent = `Go on reading “${title(context)}”`;
  page.querySelector(".lead").textContent = "Its reading was stopped. Give the same text once "
    + "more: what has been read already is not read again.";
}

// The first document is opened and followed, the others wait for their turn in the list.
async function read([first, ...others]) {
  const { page, resumed } = current;
  const name = resumed ? { name: resumed.id } : {};
  setSending(page, first);
  try {
    const id = await begin({ ...first, ...name });
    for (const body of others) library.put(await createContext(body));
    library.refresh();
    if (page.isConnected) goTo(id);
  } catch (error) {
    notice(error, () => read([first, ...others]));
  } finally {
    setSending(page, null);
  }
}

function setSending(page, body) {
  const words = body && `Sending ${title(body)}, ${bytes(body.text.length)}`;
  page.querySelector(".sending").hidden = body === null;
  page.querySelector(".sending-words").textContent = words ?? "";
  page.querySelector(".drop").setAttribute("aria-busy", String(body !== null));
  for (const control of page.querySelectorAll("button, input")) control.disabled = body !== null;
  if (words) announce(words);
}

function notice(error, again = null) {
  showError(current.page.querySelector(".notices"), error, error.status >= 0 ? again : null);
}
