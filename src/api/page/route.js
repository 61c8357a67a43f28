// Which view the address asks for: `#/` is a new document, `#/ID` a context, `#/ID?resume` the
// text of a context whose reading stopped.

const ADDRESS = /^#\/([^?]+)(\?resume)?$/;

/** `{ id, resume }`: the context that the address names, or null, and whether it is to go on. */
export function route() {
  const [, name = null, resume] = ADDRESS.exec(location.hash) ?? [];
  return { id: name && decoded(name), resume: resume !== undefined };
}

// Whoever types an address may type a lone "%".
function decoded(name) {
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

export const shownId = () => route().id;

export const addressOf = (id) => `#/${encodeURIComponent(id)}`;

export const resumeAddressOf = (id) => `${addressOf(id)}?resume`;

export function goTo(id) {
  location.hash = addressOf(id);
}

export function goHome() {
  location.hash = "#/";
}
