// How numbers, sizes, times and contexts are put into words.

const counts = new Intl.NumberFormat("en");
const rounded = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium" });

export function count(number) {
  return counts.format(Math.round(number));
}

/** `1 passage`, `3 passages` */
export function some(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${rounded.format(number)} ${units[unit]}`;
}

export function percent(share) {
  const value = share * 100;
  if (value > 0 && value < 1) return "< 1 %";
  return `${Math.round(value)} %`;
}

/** A rate that stays readable from 0.4 to 40,000 a second. */
export function perSecond(rate) {
  return rate < 10 ? rate.toFixed(1) : count(rate);
}

/** A length of time, no finer than anyone can plan with. */
export function duration(seconds) {
  if (seconds < 1) return "a moment";
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${rounded.format(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export function date(secondsSince1970) {
  return day.format(new Date(secondsSince1970 * 1000));
}

/** What a context is called on the page: its file, the title of a pasted text, or its id. */
export function title(context) {
  const { file, title: given } = context.metadata ?? {};
  return [file, given].find((name) => typeof name === "string" && name.trim()) ?? context.id;
}

export function isReading(context) {
  return context.status === "queued" || context.status === "reading";
}

/** How much of a context has been read, 0..1; null where its length is not known. */
export function shareRead(context) {
  if (context.status === "ready") return 1;
  if (!context.total_tokens) return null;
  return Math.min(1, context.tokens / context.total_tokens);
}

/** One line under a context's name in the list. */
export function inBrief(context) {
  const share = shareRead(context);
  switch (context.status) {
    case "queued": return "waiting to be read";
    case "reading": return share === null ? "being read" : `being read, ${percent(share)}`;
    case "stopped": return share === null ? "read in part" : `read in part, ${percent(share)}`;
    case "failed": return "could not be read";
  }
  const turns = context.kind === "conversation" ? `, ${some(context.turns, "turn")}` : "";
  return `${count(context.tokens)} tokens${turns}`;
}

/** The line of facts under the name of the context that is open. */
export function inFull(context) {
  const facts = [];
  if (context.kind === "conversation") facts.push(`conversation of ${some(context.turns, "turn")}`);
  if (context.text_bytes) facts.push(`${bytes(context.text_bytes)} of text`);
  if (context.total_tokens) facts.push(`${count(context.total_tokens)} tokens`);
  if (context.disk_bytes) facts.push(`${bytes(context.disk_bytes)} on disk`);
  if (context.forked_from) facts.push(`fork of ${context.forked_from}`);
  if (!context.pinned && context.expires_at) facts.push(`kept until ${date(context.expires_at)}`);
  return facts.join(" · ");
}
