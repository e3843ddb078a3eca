// Batches: the same form several times, or a table whose first line names the inputs.
import { newSeed } from "./fields.js";
import { t } from "./i18n.js";

// Lines of cells; commas, semicolons or tabs between them, quotes around what holds one.
function cellsOf(text) {
  const first = text.split("\n", 1)[0];
  const mark = ["\t", ";", ","].find((one) => first.includes(one)) || "\n";
  const lines = [[]];
  let cell = "", isQuoted = false;
  for (let place = 0; place < text.length; place += 1) {
    const letter = text[place];
    if (isQuoted) {
      if (letter === '"' && text[place + 1] === '"') { cell += '"'; place += 1; } else if (letter === '"') isQuoted = false; else cell += letter;
    } else if (letter === '"' && cell === "") isQuoted = true;
    else if (letter === "\n" || letter === mark) { lines.at(-1).push(cell); cell = ""; if (letter === "\n") lines.push([]); }
    else if (letter !== "\r") cell += letter;
  }
  lines.at(-1).push(cell);
  return lines.map((line) => line.map((one) => one.trim())).filter((line) => line.some(Boolean));
}

function valueOf(input, text) {
  if (["seed", "size", "number"].includes(input.kind)) { const value = Number(text); return text === "" || Number.isNaN(value) ? undefined : value; }
  if (input.kind === "flag") return /^(1|true|yes|да)$/i.test(text);
  return text;
}

export function readTable(text, inputs) {
  const [head, ...lines] = cellsOf(text.trim());
  const columns = head.map((name) => inputs.find((input) => input.name === name || input.title === name || input.name.split(".").at(-1) === name));
  const unknown = head.find((_, place) => !columns[place]);
  if (unknown !== undefined) return { rows: [], error: t("no such input", { name: unknown }) };
  const rows = [];
  for (const line of lines) {
    const row = {};
    for (const [place, input] of columns.entries()) {
      const value = valueOf(input, line[place] ?? "");
      if (value === undefined) return { rows: [], error: t("not a number", { name: input.name, value: line[place] ?? "" }) };
      row[input.name] = value;
    }
    rows.push(row);
  }
  return { rows, error: null };
}

export function runsOf(inputs, values, { rolls, times, rows }) {
  const runs = [];
  for (const row of rows.length ? rows : [{}]) {
    for (let turn = 0; turn < times; turn += 1) {
      const rolled = Object.fromEntries(inputs.filter((input) => rolls[input.name] && !(input.name in row)).map((input) => [input.name, newSeed(input)]));
      runs.push({ ...values, ...rolled, ...row });
    }
  }
  return runs;
}
