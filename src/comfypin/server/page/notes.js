// By what a job differs from others of its workflow ("width 2000"): noted in the browser that sent it.
import { read, write } from "./i18n.js";

const MOST = 500;
let notes = null;
const known = () => (notes ||= new Map(read("notes", [])));

export const noteOf = (id) => known().get(id) || "";

export function writeNote(id, note) {
  if (!note) return;
  known().set(id, note);
  for (const oldest of known().keys()) { if (known().size <= MOST) break; known().delete(oldest); }
  write("notes", [...known()]);
}
