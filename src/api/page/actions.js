// What can be done to a context from the list and from its own page: pin, fork, delete.

import { deleteContext, forkContext, patchContext } from "./api.js";
import { announce } from "./dom.js";
import { askFor, confirm } from "./dialogs.js";
import { forget } from "./history.js";
import { library } from "./library.js";
import { goHome, goTo, shownId } from "./route.js";
import { isReading, title } from "./words.js";

/** Keeps a context for good, or lets it expire again. */
export async function togglePin(context) {
  const changed = await patchContext(context.id, { pinned: !context.pinned });
  library.put(changed);
  announce(`${title(changed)} is ${changed.pinned ? "pinned" : "no longer pinned"}`);
  return changed;
}

/** Makes a fork and opens it. */
export async function fork(context) {
  const name = await askFor({
    title: `Fork “${title(context)}”`,
    text: "A fork begins as the same document, already read. It shares what was read, so it "
      + "takes hardly any space.",
    label: "Name (optional)",
    yes: "Fork",
  });
  if (name === null) return;
  const made = await forkContext(context.id, name);
  library.put(made);
  announce("Forked");
  goTo(made.id);
}

/** Deletes a context for good, after a question. */
export async function remove(context) {
  const reading = isReading(context);
  const sure = await confirm({
    title: `Delete “${title(context)}”?`,
    text: reading ? "Its reading is stopped, and what was read so far is gone."
      : "The text and all that was read of it are gone then. Forks of it stay.",
    yes: reading ? "Stop and delete" : "Delete",
  });
  if (!sure) return;
  await deleteContext(context.id);
  forget(context.id);
  library.drop(context.id);
  announce(`${title(context)} is deleted`);
  if (shownId() === context.id) goHome();
}
