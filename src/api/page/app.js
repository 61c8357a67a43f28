// The page as a whole: which view is shown, and what works in each of them.

import { getContext, listModels, setKeyAsker } from "./api.js";
import { showContext } from "./context.js";
import { askFor } from "./dialogs.js";
import { openPaste, showHome, take } from "./home.js";
import { library } from "./library.js";
import { goHome, route } from "./route.js";
import { closeShelf, markShown, startShelf } from "./shelf.js";

const main = document.getElementById("main");
const curtain = document.getElementById("curtain");
let leave = new AbortController();
let shown = null;

/** Shows what the address says, unless it is shown already. */
async function render() {
  const { id, resume } = route();
  if (shown === location.hash) return;
  shown = location.hash;
  leave.abort();
  leave = new AbortController();
  const { signal } = leave;
  closeShelf();
  markShown();
  document.body.dataset.view = id && !resume ? "context" : "home";
  if (id && !resume) return showContext(main, id, signal);
  const resumed = resume ? await getContext(id, signal).catch(() => null) : null;
  if (!signal.aborted) showHome(main, resumed);
}

function enterHome() {
  if (route().id === null || route().resume) return;
  goHome();
  // The view has to be there now, not when the browser gets round to telling of it.
  render();
}

// One request asks for a key at a time, and all that wait get the same one.
let asked = null;
setKeyAsker((message) => {
  asked ??= askFor({
    title: "A key, please",
    text: `${message} Enter an API key of this server. It is kept in this tab only.`,
    label: "API key", yes: "Use this key", secret: true, required: true,
  }).finally(() => { asked = null; });
  return asked;
});

// Files can be dropped anywhere, whatever is shown.
let depth = 0;
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
const setDragging = (dragging) => {
  depth = dragging ? depth : 0;
  curtain.hidden = !dragging;
};
document.addEventListener("dragenter", (event) => {
  if (!carriesFiles(event)) return;
  depth += 1;
  setDragging(true);
});
document.addEventListener("dragleave", () => {
  depth -= 1;
  if (depth <= 0) setDragging(false);
});
document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  setDragging(false);
  const files = [...event.dataTransfer.files];
  enterHome();
  take(files);
});

document.addEventListener("paste", (event) => {
  if (document.body.dataset.view !== "home") return;
  if (event.target.closest("input, textarea, dialog")) return;
  const text = event.clipboardData.getData("text");
  if (!text.trim()) return;
  event.preventDefault();
  openPaste(text);
});

document.getElementById("skip").addEventListener("click", () => main.focus());
window.addEventListener("hashchange", render);

startShelf();
render();
library.refresh();
listModels().then(
  ({ data }) => { document.getElementById("model").textContent = data[0]?.id ?? ""; },
  () => {}, // The list says what is wrong with the server.
);
