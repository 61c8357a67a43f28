// How the service is asked: requests, keys and errors. docs/api.md says what the replies mean.

import { ApiError } from "./errors.js";
import { events } from "./sse.js";

// For this tab only: a key does not outlive the window that it was typed into.
const KEY_SLOT = "mneme.key";

let askForKey = async () => null;

/** Sets who is asked for a key: `async (message) => key`, or null where none is given. */
export function setKeyAsker(asker) {
  askForKey = asker;
}

/** Sends a request, asking for a key as often as the server wants another one. */
async function send(method, path, { body, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY_SLOT);
    const response = await attempt(method, path, { body, signal, key });
    if (response.ok) return response;
    const error = await errorOf(response);
    if (error.status !== 401) throw error;
    // Another request may have been given a better key in the meantime.
    if (sessionStorage.getItem(KEY_SLOT) !== key) continue;
    const entered = await askForKey(error.message);
    if (!entered) throw error;
    sessionStorage.setItem(KEY_SLOT, entered);
  }
}

async function attempt(method, path, { body, signal, key }) {
  const headers = {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  const content = body === undefined ? undefined : JSON.stringify(body);
  try {
    return await fetch(path, { method, headers, body: content, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer.");
  }
}

async function errorOf(response) {
  const body = await response.json().catch(() => null);
  return ApiError.fromBody(body, {
    status: response.status,
    retryAfter: Number(response.headers.get("Retry-After")) || undefined,
    requestId: response.headers.get("x-request-id") ?? undefined,
  });
}

async function json(method, path, options) {
  const response = await send(method, path, options);
  return response.json();
}

const at = (id, rest = "") => `v1/contexts/${encodeURIComponent(id)}${rest}`;

export const listModels = () => json("GET", "v1/models");

export function listContexts({ after, limit }) {
  const query = new URLSearchParams({ limit });
  if (after) query.set("after", after);
  return json("GET", `v1/contexts?${query}`);
}

export const getContext = (id, signal) => json("GET", at(id), { signal });

export const forkContext = (id, name) =>
  json("POST", at(id, "/fork"), { body: name ? { name } : {} });

export const patchContext = (id, body) => json("PATCH", at(id), { body });

export const deleteContext = (id) => json("DELETE", at(id));

/** Bytes `start..end` of the text, at most 1 MiB. */
export const getText = (id, { start, end }, signal) =>
  json("GET", at(id, `/text?start=${start}&end=${end}`), { signal });

/** Begins a reading without waiting for it. */
export const createContext = (body) => json("POST", "v1/contexts", { body });

/** Begins a reading and follows it: its events, see sse.js. */
export async function readContext(body) {
  return events(await send("POST", "v1/contexts", { body: { ...body, stream: true } }));
}

/** Asks, and follows the answer. */
export async function chat(body, signal) {
  return events(await send("POST", "v1/chat/completions", { body, signal }));
}
