// Workflows that were dropped or pasted, in this browser: the newest few, and none that is too large for its storage.
import { read, write } from "./i18n.js";

const MOST = 12;
const MOST_CHARACTERS = 1_000_000; // of all of them; browsers keep about five million for a server

let known = null; // of this page, with what was too large

export function readDropped() {
  const kept = known || read("dropped", []);
  return Array.isArray(kept) ? kept.filter((one) => one && one.id && one.workflow) : [];
}

// The same file dropped twice is one entry.
export function idOf(workflow, name) {
  let sum = 7;
  for (const letter of `${name}\n${JSON.stringify(workflow)}`) sum = (Math.imul(sum, 31) + letter.codePointAt(0)) | 0;
  return (sum >>> 0).toString(36);
}

// What does not fit is in the list until the page is loaded again.
function store(entries) {
  known = entries;
  let left = MOST_CHARACTERS;
  write("dropped", entries.filter((one) => { const size = JSON.stringify(one.workflow).length; if (size > left) return false; left -= size; return true; }));
  return entries;
}

export const keep = (entries, entry) => store([entry, ...entries.filter((one) => one.id !== entry.id)].slice(0, MOST));
export const forget = (entries, id) => store(entries.filter((one) => one.id !== id));
