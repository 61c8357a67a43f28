// How a stream of events is read: `data:` lines of JSON until `[DONE]`, and comments between them.

import { ApiError } from "./errors.js";

/**
 * The events of a reply, each `{ data }` or `{ comment }`.
 * Throws an ApiError for an event that carries an error, and where the stream breaks off.
 */
export async function* events(response) {
  for await (const line of lines(response.body)) {
    if (line.startsWith(":")) yield { comment: line.slice(1).trim() };
    if (!line.startsWith("data:")) continue;
    const payload = line.slice(5).trim();
    if (payload === "[DONE]") return;
    const data = JSON.parse(payload);
    if (data.error) throw ApiError.fromBody(data, { status: 200 });
    yield { data };
  }
  throw new ApiError("The connection ended before the stream did.", { code: "broken_off" });
}

// The service writes one line of data an event, so a line is as good as an event.
async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(brokenOff);
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) yield part.replace(/\r$/, "");
    }
  } finally {
    // Whoever leaves the loop early hangs up: the server should not speak to nobody.
    reader.cancel().catch(() => {});
  }
}

function brokenOff(error) {
  if (error.name === "AbortError") throw error;
  throw new ApiError("The connection broke off.", { code: "broken_off" });
}
