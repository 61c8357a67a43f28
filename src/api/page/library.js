// Which contexts there are, as the server last said. Whoever shows them listens for "change".

import { listContexts } from "./api.js";

const PAGE = 100;

class Library extends EventTarget {
  #byId = new Map();
  hasMore = false;
  error = null;

  /** The contexts, the last used first. */
  get contexts() {
    return [...this.#byId.values()].sort((a, b) => b.last_used - a.last_used
      || b.created - a.created || a.id.localeCompare(b.id));
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** Asks again for as many as are shown. */
  async refresh() {
    await this.#load(null, Math.max(PAGE, Math.ceil(this.#byId.size / PAGE) * PAGE));
  }

  async loadMore() {
    const last = [...this.#byId.keys()].sort().at(-1) ?? null;
    await this.#load(last, PAGE);
  }

  async #load(after, wanted) {
    try {
      const found = [];
      let page = { last_id: after, has_more: true };
      while (page.has_more && found.length < wanted) {
        page = await listContexts({ after: page.last_id, limit: PAGE });
        found.push(...page.data);
      }
      if (after === null) this.#byId.clear();
      for (const context of found) this.#byId.set(context.id, context);
      this.hasMore = page.has_more;
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.#changed();
  }

  /** Takes up a context as the server just described it. */
  put(context) {
    this.#byId.set(context.id, context);
    this.#changed();
  }

  drop(id) {
    this.#byId.delete(id);
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const library = new Library();
