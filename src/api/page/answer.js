// How the words of an answer are set: the little Markdown that models write, as nodes.

import { el } from "./dom.js";

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*/g;
const ITEM = /^\s*(?:[-*•]|(\d+)[.)])\s+(.*)$/;

/** The nodes of an answer, also of one that is not yet whole. */
export function setAnswer(text) {
  const blocks = [];
  let list = null;
  for (const block of text.split(/(```[\s\S]*?(?:```|$))/)) {
    if (block.startsWith("```")) {
      blocks.push(codeBlock(block));
      continue;
    }
    list = null;
    for (const paragraph of block.split(/\n{2,}/)) {
      for (const part of partsOf(paragraph)) {
        if (part.item === undefined) {
          list = null;
          blocks.push(el("p", {}, ...inline(part.text)));
          continue;
        }
        if (list?.localName !== part.kind) {
          list = el(part.kind, part.kind === "ol" ? { start: part.number } : {});
          blocks.push(list);
        }
        list.append(el("li", {}, ...inline(part.item)));
      }
    }
  }
  return blocks;
}

function codeBlock(block) {
  const code = block.replace(/^```[^\n]*\n?/, "").replace(/\n?```$/, "");
  return el("pre", {}, el("code", {}, code));
}

// The items of lists, and the lines between them that belong together.
function* partsOf(paragraph) {
  let lines = [];
  for (const line of paragraph.split("\n")) {
    const match = ITEM.exec(line);
    if (!match) {
      lines.push(line.replace(/^#{1,6}\s+(.*)$/, "**$1**"));
      continue;
    }
    if (lines.join("").trim()) yield { text: lines.join("\n") };
    lines = [];
    yield { item: match[2], kind: match[1] ? "ol" : "ul", number: match[1] };
  }
  if (lines.join("").trim()) yield { text: lines.join("\n").trim() };
}

function inline(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(from, match.index));
    nodes.push(match[1] ? el("code", {}, match[1]) : el("strong", {}, match[2]));
    from = match.index + match[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}
