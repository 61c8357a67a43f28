// How a piece of plain text wants to be set: as prose that flows, or line by line as it stands.

const LETTERS = /[\p{L}\p{M} ,.;:!?'"“”‘’\n\r-]/gu;
const HARD_WRAPPED = 45;

/** "prose", "wrapped" (prose whose lines were broken by hand) or "lines" (code, tables, logs). */
export function setting(text) {
  const letters = text.match(LETTERS)?.length ?? 0;
  if (letters < text.length * 0.94 || /^([ \t]{2,}|\t)\S.*[;{}()]$/m.test(text)) return "lines";
  // The last line of a paragraph says nothing: only lines that another one follows count.
  const broken = text.match(/[^\n]+(?=\n[^\n])/g) ?? [];
  const length = broken.reduce((sum, line) => sum + line.length, 0) / (broken.length || 1);
  const longest = Math.max(0, ...broken.map((line) => line.length));
  return broken.length > 3 && length > HARD_WRAPPED && longest < 100 ? "wrapped" : "prose";
}

/** Lets lines that were broken by hand flow again; paragraphs stay, and so does every length. */
export function flowing(text) {
  return text.replace(/(\S[ \t]*\r?)\n(?=\S)/g, "$1 ");
}
