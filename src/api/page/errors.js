// What went wrong, in the service's own words, and what can be done about it.

import { el, icon, iconButton } from "./dom.js";

/** An error of the API, or of the way there (then `status` is 0). */
export class ApiError extends Error {
  constructor(message, { status = 0, type, code, retryAfter, requestId } = {}) {
    super(message);
    Object.assign(this, { status, type, code, retryAfter, requestId });
  }

  static fromBody(body, { status, retryAfter, requestId }) {
    const { message, type, code } = body?.error ?? {};
    const words = message ?? `The server answered with status ${status}.`;
    return new ApiError(words, { status, type, code, retryAfter, requestId });
  }
}

const BY_CODE = {
  invalid_api_key: "Try again with a key that the server knows.",
  context_not_found: "It may have expired, or was deleted. Choose another document.",
  context_exists: "Choose another name.",
  context_busy: "Wait until what is at work with it has finished, then try again.",
  context_length_exceeded: "Ask with fewer words.",
  body_too_large: "Split the document, or let the server take larger ones in its configuration.",
  queue_full: "The server has more work than it takes. Try again in a moment.",
  draining: "The server is being stopped. Try again when it runs again.",
  store_full: "Delete documents that are no longer needed, then try again.",
  broken_off: "What the server began may still go on there. Try again.",
};

const BY_TYPE = {
  authentication_error: BY_CODE.invalid_api_key,
  rate_limit_error: BY_CODE.queue_full,
  server_error: "Try again. The server's log has more about it.",
};

/** What to do about an error; an empty text where only its message helps. */
export function advice(error) {
  if (error.retryAfter) return `The server asks to try again in ${error.retryAfter} s.`;
  if (error.status === 0 && !error.code) return "See that mneme serve is running, then try again.";
  return BY_CODE[error.code] ?? BY_TYPE[error.type] ?? "";
}

/**
 * Shows an error in a place made for notices, instead of what was there.
 * `again`, where there is such a thing, is what "Try again" does.
 */
export function showError(place, error, again = null) {
  const close = () => place.replaceChildren();
  const retry = again && el("button", {
    type: "button", class: "plain", onclick: () => { close(); again(); },
  }, "Try again");
  // Only what the server did wrong is looked up in its log.
  const request = error.status >= 500 && error.requestId && `Request ${error.requestId}.`;
  const details = [advice(error), request];
  place.replaceChildren(el("div", { class: "notice", role: "alert" },
    icon("warn"),
    el("div", {},
      el("p", { class: "notice-message" }, error.message),
      el("p", { class: "notice-advice" }, details.filter(Boolean).join(" ")),
      retry),
    iconButton("close", "Dismiss", close)));
}
