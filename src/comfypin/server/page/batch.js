// Batches: the same form several times, or a table whose first line names the inputs.
import { asHex, isColor, isWhole, labelOf, newSeed } from "./fields.js";
import { number, t } from "./i18n.js";

// Lines of cells, each with its number; commas, semicolons or tabs between cells, quotes around what holds one.
function cellsOf(text) {
  const first = text.split("\n", 1)[0];
  const mark = ["\t", ";", ","].find((one) => first.includes(one)) || "\n";
  const lines = [{ number: 1, cells: [] }];
  let cell = "", isQuoted = false, passed = 1;
  for (let place = 0; place < text.length; place += 1) {
    const letter = text[place];
    if (letter === "\n") passed += 1;
    if (isQuoted) {
      if (letter === '"' && text[place + 1] === '"') { cell += '"'; place += 1; } else if (letter === '"') isQuoted = false; else cell += letter;
    } else if (letter === '"' && cell === "") isQuoted = true;
    else if (letter === "\n" || letter === mark) { lines.at(-1).cells.push(cell); cell = ""; if (letter === "\n") lines.push({ number: passed, cells: [] }); }
    else if (letter !== "\r") cell += letter;
  }
  lines.at(-1).cells.push(cell);
  return lines.map((line) => ({ ...line, cells: line.cells.map((one) => one.trim()) })).filter((line) => line.cells.some(Boolean));
}

const plain = (text) => text.toLowerCase().replace(/_/g, " ").trim();
const shortLabel = (input) => labelOf(input, true)[0];
const lastPart = (input) => input.name.split(".").at(-1);

// What a column may be called: a full name wins over a label that several inputs share.
function findInput(name, inputs) {
  const wanted = plain(name);
  const spellings = [(input) => input.name, (input) => input.title || "", (input) => labelOf(input, false).join(" "), (input) => labelOf(input, false).reverse().join(" "), shortLabel, lastPart];
  for (const spelling of spellings) {
    const found = inputs.find((input) => plain(spelling(input)) === wanted);
    if (found) return found;
  }
  return null;
}

// The shortest name by which each input is found.
const columnName = (input, inputs) => [shortLabel(input), lastPart(input)].find((name) => findInput(name, inputs) === input) || input.name;

const MOST_NAMED = 15;
export function columnNames(inputs) {
  const names = inputs.map((input) => columnName(input, inputs));
  return names.slice(0, MOST_NAMED).join(", ") + (names.length > MOST_NAMED ? ", \u2026" : "");
}

// Two columns and two lines, of the first inputs whose values are short.
export function exampleTable(inputs) {
  const short = inputs.filter((input) => ["size", "number", "seed"].includes(input.kind));
  const columns = [...short, ...inputs.filter((input) => !short.includes(input) && input.kind !== "file")].slice(0, 2);
  const cell = (input) => (/[,;\t\n"]/.test(String(input.default ?? "")) || input.default === "" ? "\u2026" : String(input.default ?? "\u2026").slice(0, 24));
  const line = columns.map(cell).join(",");
  return [columns.map((input) => columnName(input, inputs)).join(","), line, line].join("\n");
}

// A cell as the input's value, or why it is none.
function readCell(input, text) {
  if (isColor(input) && /^#[0-9a-f]{6}$/i.test(text)) return { value: parseInt(text.slice(1), 16) };
  if (["seed", "size", "number"].includes(input.kind)) {
    const value = Number(text);
    if (text === "" || Number.isNaN(value)) return { wrong: t("not a number", { value: text }) };
    if (isWhole(input) && !Number.isInteger(value)) return { wrong: t("not whole", { value: text }) };
    if (input.minimum != null && value < input.minimum) return { wrong: t("at least this", { value: text, n: input.minimum }) };
    if (input.maximum != null && value > input.maximum) return { wrong: t("at most this", { value: text, n: input.maximum }) };
    return { value };
  }
  if (input.kind === "flag") {
    if (!/^(1|0|true|false|yes|no|да|нет)$/i.test(text)) return { wrong: t("not yes or no", { value: text }) };
    return { value: /^(1|true|yes|да)$/i.test(text) };
  }
  if (input.choices && input.choices.length && input.kind !== "file") {
    const found = input.choices.find((choice) => String(choice) === text) ?? input.choices.find((choice) => String(choice).toLowerCase() === text.toLowerCase());
    if (found === undefined) return { wrong: t("not a choice", { value: text, names: input.choices.slice(0, 8).join(", ") + (input.choices.length > 8 ? ", \u2026" : "") }) };
    return { value: found };
  }
  if (input.max_length != null && text.length > input.max_length) return { wrong: t("too long", { n: input.max_length }) };
  return { value: text };
}

export function readTable(text, inputs) {
  const none = (error) => ({ rows: [], columns: [], error });
  const [head, ...lines] = cellsOf(text.replace(/\s+$/, ""));
  if (!head) return none(null);
  const columns = head.cells.map((name) => findInput(name, inputs));
  const unknown = head.cells.find((_, place) => !columns[place]);
  if (unknown !== undefined) return none(t("no such input", { name: unknown || "\u2013", names: columnNames(inputs) }));
  const rows = [];
  for (const line of lines) {
    const row = {};
    for (const [place, input] of columns.entries()) {
      const { value, wrong } = readCell(input, line.cells[place] ?? "");
      if (wrong) return none(t("wrong cell", { n: number(line.number), name: head.cells[place], wrong }));
      row[input.name] = value;
    }
    rows.push(row);
  }
  return { rows, columns, error: null };
}

const MOST_SHOWN = 4;
const shown = (input, value) => (typeof value === "string" && value.startsWith("data:") ? t("own file") : isColor(input) && Number.isInteger(value) ? asHex(value) : String(value).length > 40 ? `${String(value).slice(0, 40)}\u2026` : String(value));

// "width 2000, color #ff0000": by what each run differs from the others, or a single one from the workflow's own values.
export function differencesOf(inputs, runs) {
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const differs = (input) => (runs.length > 1 ? runs.some((run) => !same(run[input.name], runs[0][input.name])) : !same(runs[0][input.name], input.default));
  const all = inputs.filter(differs);
  const told = all.filter((input) => input.kind !== "seed");
  const chosen = told.length ? told : all;
  return runs.map((run) => chosen.slice(0, MOST_SHOWN).map((input) => `${columnName(input, inputs).toLowerCase()} ${shown(input, run[input.name])}`).join(", "));
}

export function runsOf(inputs, values, { rolls, times, rows }) {
  // Seeds that stay would make the same picture again and again: only the first run has them then.
  const isRolled = (input, turn) => rolls[input.name] || (turn > 0 && input.kind === "seed" && !Object.values(rolls).some(Boolean));
  const runs = [];
  for (const row of rows.length ? rows : [{}]) {
    for (let turn = 0; turn < times; turn += 1) {
      const rolled = Object.fromEntries(inputs.filter((input) => isRolled(input, turn) && !(input.name in row)).map((input) => [input.name, newSeed(input)]));
      runs.push({ ...values, ...rolled, ...row });
    }
  }
  return runs;
}
