// What was asked of a context in this tab, so that a reload does not lose it.

const slot = (id) => `mneme.turns.${id}`;

/** The turns of a context: `{ question, answer, evidence, usage, state, ... }`. */
export function recall(id) {
  try {
    return JSON.parse(sessionStorage.getItem(slot(id))) ?? [];
  } catch {
    return [];
  }
}

/** Keeps the turns of a context; does without where the browser has no more room. */
export function keep(id, turns) {
  try {
    sessionStorage.setItem(slot(id), JSON.stringify(turns));
  } catch {
    sessionStorage.removeItem(slot(id));
  }
}

export function forget(id) {
  sessionStorage.removeItem(slot(id));
}
