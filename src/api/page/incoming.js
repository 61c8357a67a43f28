// How what someone drops, chooses or pastes becomes the text of a new document.

const TITLE_LENGTH = 60;

/**
 * The body of a reading for a file: `{ text, metadata }`.
 * Throws an Error that says what is wrong with it.
 */
export async function fromFile(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (bytes.length === 0) throw new Error(`${file.name} is empty.`);
  return { text: decode(bytes, file.name), metadata: { file: file.name } };
}

/** The same for a pasted text, called by its first line. */
export function fromPaste(text) {
  const line = text.trim().split("\n", 1)[0].trim();
  const title = line.length > TITLE_LENGTH ? `${line.slice(0, TITLE_LENGTH).trimEnd()}…` : line;
  return { text, metadata: { title } };
}

// The service takes UTF-8 alone. Older encodings of western texts are common enough to be read too.
function decode(bytes, name) {
  const mark = encodingByMark(bytes);
  if (mark) return new TextDecoder(mark).decode(bytes);
  if (isBinary(bytes)) {
    throw new Error(`${name} is not plain text. Save it as text first, then drop that file.`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

function encodingByMark([first, second]) {
  if (first === 0xff && second === 0xfe) return "utf-16le";
  if (first === 0xfe && second === 0xff) return "utf-16be";
  return null;
}

function isBinary(bytes) {
  const start = bytes.subarray(0, 65536);
  const isPdf = String.fromCharCode(...start.subarray(0, 5)) === "%PDF-";
  return isPdf || start.includes(0);
}
