// Running: a form for each workflow of the server, or for any workflow that is dropped or pasted, and what came of it.
import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { cancelJob } from "./actions.js";
import { post, get } from "./api.js";
import { columnNames, differencesOf, exampleTable, readTable, runsOf } from "./batch.js";
import { forget, idOf, keep, readDropped } from "./dropped.js";
import { Field, groupsOf, labelOf, startValue } from "./fields.js";
import { read, t, write } from "./i18n.js";
import { OutputTile, outputsOf } from "./job.js";
import { noteOf, writeNote } from "./notes.js";
import { Presets } from "./presets.js";
import { ProgressLine } from "./queue.js";
import { isPending, useStore } from "./store.js";
import { English, Findings as FindingList, causeOf, listedFindings, told } from "./told.js";
import { Empty, Icon, IconButton, Progress, StatusMark, say, sayFailure, shortId, useLoaded } from "./ui.js";

const MAIN = ["prompt", "seed", "size", "file", "model"];
const OWN = "\u0000own"; // and the id of what was dropped
const FEW = 10; // so many inputs need no fold
const MANY = 30; // and more than so many need a search
const ENGINE_AGAIN_MS = 2000;
const MOST_SIZES = 3; // nodes; what has more is drawn, not set
const nodeOf = (target) => target.slice(0, target.lastIndexOf("."));

function mediaOf(input, value) {
  const kind = /^data:[a-z]+\/([a-z0-9]+)/i.exec(value);
  return { name: `${input.target.replace(/[^A-Za-z0-9_-]/g, "_")}.${kind ? kind[1].toLowerCase() : "bin"}`, data: value, node: nodeOf(input.target) };
}

const titleOf = (workflow) => workflow.title || workflow.name || t("own workflow");

function submit(workflow, values) {
  const sent = workflow.inputs.filter((input) => values[input.name] !== undefined && JSON.stringify(values[input.name]) !== JSON.stringify(input.default));
  if (!workflow.own) return post(`workflows/${encodeURIComponent(workflow.name)}`, Object.fromEntries(sent.map((input) => [input.name, values[input.name]])));
  const isFile = (input) => input.kind === "file" && typeof values[input.name] === "string" && values[input.name].startsWith("data:");
  const set = Object.fromEntries(sent.filter((input) => !isFile(input)).map((input) => [input.target, values[input.name]]));
  const inputs = sent.filter(isFile).map((input) => mediaOf(input, values[input.name]));
  return post("run", { input: { workflow: workflow.own, title: titleOf(workflow).slice(0, 200), set, ...(inputs.length && { inputs }) } });
}

function filesFirst(inputs) {
  const order = ["prompt", "file"];
  const place = (input) => (order.includes(input.kind) ? order.indexOf(input.kind) : order.length);
  return [...inputs].sort((one, other) => place(one) - place(other));
}

// What nearly everybody sets, and the rest if there is much. Files come before sizes, and of many sizes only the first:
// unless the workflow's author chose the inputs and their order.
function divide(workflow) {
  if (workflow.inputs.length <= FEW) return [workflow.title || workflow.description ? workflow.inputs : filesFirst(workflow.inputs), []];
  const main = workflow.inputs.filter((input) => MAIN.includes(input.kind) || input.required);
  if (!workflow.title && !workflow.description) {
    const sized = [...new Set(main.filter((input) => input.kind === "size").map((input) => nodeOf(input.target)))];
    const isHidden = (input) => input.kind === "size" && !input.required && sized.indexOf(nodeOf(input.target)) >= MOST_SIZES;
    const shown = filesFirst(main.filter((input) => !isHidden(input)));
    return [shown, workflow.inputs.filter((input) => !shown.includes(input))];
  }
  return [main, workflow.inputs.filter((input) => !main.includes(input))];
}

// What a browser keeps of a form: no files, they are large and lie on the disk anyway.
const keepable = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => typeof value !== "string" || !value.startsWith("data:")));

function Form({ workflow, given, isRemade, onTaken, onChanged, isBlocked, wrong = [] }) {
  const kept = `form.${workflow.name}`;
  const [values, setValues] = useState(() => {
    const old = given || (workflow.own ? {} : read(kept, {}));
    return Object.fromEntries(workflow.inputs.map((input) => [input.name, old[input.name] ?? startValue(input)]));
  });
  const [rolls, setRolls] = useState(() => Object.fromEntries(workflow.inputs.filter((input) => input.kind === "seed").map((input) => [input.name, !isRemade])));
  const [times, setTimes] = useState(1);
  const [table, setTable] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [search, setSearch] = useState("");
  const set = (name, value) => setValues((old) => ({ ...old, [name]: value }));
  const [main, rest] = divide(workflow);
  const parsed = useMemo(() => (table.trim() ? readTable(table, workflow.inputs) : { rows: [], columns: [], error: null }), [table]);
  const isSet = (input) => values[input.name] !== input.default || (parsed.rows.length > 0 && parsed.columns.includes(input));
  useEffect(() => onChanged(workflow.inputs.filter(isSet).map((input) => input.target)), [values, parsed]);

  async function send(event) {
    event.preventDefault();
    if (parsed.error) { say(parsed.error, "bad"); return; }
    setBusy(true);
    try {
      const runs = runsOf(workflow.inputs, values, { rolls, times, rows: parsed.rows });
      const notes = differencesOf(workflow.inputs, runs);
      for (const [place, run] of runs.entries()) {
        const taken = await submit(workflow, run);
        writeNote(taken.id, notes[place]);
        onTaken(taken.id, titleOf(workflow));
        setValues((old) => ({ ...old, ...Object.fromEntries(Object.keys(rolls).filter((name) => rolls[name]).map((name) => [name, run[name]])) }));
      }
      if (!workflow.own) write(kept, keepable(values));
    } catch (error) { sayFailure(error); }
    setBusy(false);
  }
  const field = (input, isGrouped = false) => html`<${Field} key=${input.name} input=${input} isGrouped=${isGrouped} value=${values[input.name]} onChange=${(value) => set(input.name, value)}
    rolls=${rolls[input.name]} onRolls=${(value) => setRolls((old) => ({ ...old, [input.name]: value }))} />`;
  const fields = (inputs) => groupsOf(inputs).map((group) => (group.inputs.length === 1
    ? field(group.inputs[0])
    : html`<fieldset key=${group.place} class="group"><legend>${group.place}</legend><div class="group-fields">${group.inputs.map((input) => field(input, true))}</div></fieldset>`));
  return html`<form class="form card" onSubmit=${send} aria-label=${titleOf(workflow)}>
    ${workflow.description && html`<p class="dim">${workflow.description}</p>`}
    ${fields(main)}
    ${main.length === 0 && rest.length === 0 && html`<p class="dim">${t("nothing to set")}</p>`}
    ${rest.length > 0 && html`<details open=${main.length === 0 || rest.some((input) => wrong.includes(input.target))}><summary>${t("more settings", { n: rest.length })}</summary><div class="form-rest">
      ${rest.length > MANY && html`<input type="search" aria-label=${t("search settings")} placeholder=${t("search settings")} value=${search} onInput=${(event) => setSearch(event.currentTarget.value)} />`}
      ${fields(rest.filter((input) => `${input.name} ${labelOf(input, false).join(" ")}`.toLowerCase().includes(search.trim().toLowerCase())))}</div></details>`}
    <details><summary>${t("batch")}</summary><div class="form-rest">
      <${Presets} workflow=${workflow.name} current=${() => ({ values: keepable(values), table, times, rolls })}
        onPick=${(preset) => { setValues((old) => ({ ...old, ...Object.fromEntries(Object.entries(preset.values || {}).filter(([name]) => name in old)) })); setTable(preset.table || ""); setTimes(preset.times || 1); setRolls(preset.rolls || {}); }} />
      <label class="field"><span class="field-name">${t("times")}</span><input type="number" min="1" max="200" value=${times} onInput=${(event) => setTimes(Math.min(200, Math.max(1, Number(event.currentTarget.value) || 1)))} /></label>
      <label class="field"><span class="field-name">${t("table")}</span><textarea rows="4" spellcheck="false" class="mono" value=${table} placeholder=${exampleTable([...main, ...rest])} onInput=${(event) => setTable(event.currentTarget.value)} /></label>
      <p class=${parsed.error ? "wrong small" : "dim small"}>${parsed.error || `${parsed.rows.length ? t("table help", { n: parsed.rows.length }) : t("table help empty")} ${t("table columns", { names: columnNames([...main, ...rest]) })}`}</p></div></details>
    <div class="form-end"><button class="primary run-button" type="submit" disabled=${isBusy || isBlocked}><${Icon} name="run" /> ${t("run now", { n: times * Math.max(1, parsed.rows.length) })}</button></div>
  </form>`;
}

function Result({ id, name }) {
  const job = useStore((s) => s.jobs.get(id));
  const preview = useStore((s) => s.previews.get(id));
  const { data } = useLoaded((signal) => (job && !isPending(job) && (job.output_count || job.error) ? get(`jobs/${id}`, {}, { signal }) : Promise.resolve(null)), [id, job && job.status]);
  const outputs = data ? outputsOf(data.output) : [];
  const findings = listedFindings(data && data.error);
  const cause = job && job.error && (causeOf(job.error) || (findings && t("cannot run here")));
  const note = noteOf(id);
  return html`<article class="result card" aria-label=${`${name} ${shortId(id)}`}>
    <p class="row"><a class="title ellipsis" href=${`#/job/${id}`}>${name}</a>${job ? html`<${StatusMark} status=${job.status} />` : null}</p>
    ${note && html`<p class="note small dim">${note}</p>`}
    ${job && job.status === "IN_PROGRESS" && html`${preview && html`<img class="result-preview" src=${preview} alt=${t("preview")} />`}<div class="result-progress"><${ProgressLine} job=${job} /></div>`}
    ${job && job.status === "IN_QUEUE" && html`<${Progress} value=${0} label=${name} />`}
    ${job && isPending(job) && html`<p><button type="button" aria-label=${t("cancel job", { name })} onClick=${() => cancelJob(job)}><${Icon} name="stop" /> ${t("cancel")}</button></p>`}
    ${job && job.error && html`<p class="wrong small failure-text">${cause && html`<strong>${cause}</strong>
`}${!findings && html`<${English} text=${job.error.message} />`}</p>`}
    ${findings && html`<div class="wrong small"><${FindingList} findings=${findings} /></div>`}
    ${outputs.length > 0 && html`<div class=${outputs.length === 1 ? "result-one" : "tiles"}>${outputs.map((output) => html`<${OutputTile} key=${output.position} jobId=${id} output=${output} />`)}</div>`}
  </article>`;
}

// What was wrong with a value that is another one now is not shown any longer.
const openFindings = (checked, changed) => checked.findings.filter((finding) => !finding.input || !changed.includes(`${finding.node}.${finding.input}`));
const isError = (finding) => finding.severity === "error";

function Findings({ report: checked, changed }) {
  const findings = openFindings(checked, changed);
  const report = { findings, runs: !findings.some(isError) };
  if (!findings.length && checked.findings.length) return null;
  if (!report.findings.length) return html`<p class="good-line"><span class="mark mark-done">${t("runs here")}</span></p>`;
  return html`<section class=${report.runs ? "warnings" : "failure"}><h2>${report.runs ? t("warnings") : t("cannot run here")}</h2><${FindingList} findings=${report.findings} /></section>`;
}

// The workflow of a job with all that was set in it, as a form: the server's own, which has its files, or a copy. Its seeds stay:
// whoever changes one thing wants to see what that one thing does.
async function formOfJob(id) {
  const job = await get(`jobs/${encodeURIComponent(id)}`);
  const { workflow_name: name, set = {}, inputs = [], models = [] } = job.input || {};
  const served = name && inputs.length + models.length === 0 && (await get("workflows")).find((one) => one.name === name);
  const isSet = (input) => input.target in set && typeof set[input.target] === typeof input.default; // a seed may be "random"
  const values = served ? Object.fromEntries(served.inputs.filter(isSet).map((input) => [input.name, set[input.target]])) : {};
  // What was set by another of its names only the graph shows.
  if (served && Object.keys(values).length === Object.keys(set).length) return { served, values };
  return { ...(await post("workflow-check", await get(`jobs/${encodeURIComponent(id)}/workflow`))), name: job.workflow || "", isRemade: true };
}

function Drop({ onReport }) {
  const [isOver, setOver] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const picker = useRef(null);
  async function check(blob, name) {
    setBusy(true);
    try {
      const report = await post("workflow-check", blob, { type: blob.type === "application/json" ? "application/json" : "application/octet-stream" });
      onReport({ ...report, isRemade: !/json|text/.test(blob.type) && !/\.json$/i.test(name || ""), name: (name || "").replace(/\.(json|png|webp|jpe?g|mp4|webm)$/i, "") });
    } catch (error) { sayFailure(error); }
    setBusy(false);
  }
  useEffect(() => {
    const drop = (event) => { event.preventDefault(); const [file] = event.dataTransfer.files; if (file) check(file, file.name); };
    const over = (event) => { event.preventDefault(); setOver(true); };
    const leave = (event) => { if (!event.relatedTarget) setOver(false); };
    const paste = (event) => {
      if (event.target.closest && event.target.closest("input,textarea,.drop-field")) return;
      const [file] = event.clipboardData.files;
      const text = event.clipboardData.getData("text");
      if (file) check(file, file.name);
      else if (text.trim().startsWith("{")) check(new Blob([text], { type: "application/json" }));
    };
    const end = () => setOver(false); // also of a drop that a field takes
    addEventListener("drop", end, true); addEventListener("drop", drop); addEventListener("dragover", over); addEventListener("dragleave", leave); addEventListener("paste", paste);
    return () => { removeEventListener("drop", end, true); removeEventListener("drop", drop); removeEventListener("dragover", over); removeEventListener("dragleave", leave); removeEventListener("paste", paste); };
  }, []);
  return html`<div class=${`drop ${isOver ? "is-over" : ""}`} aria-busy=${isBusy ? "true" : "false"}>
    <${Icon} name="upload" /><p>${t("drop workflow")}</p>
    <button type="button" onClick=${() => picker.current.click()}>${t("choose file")}</button>
    <input ref=${picker} type="file" hidden accept=".json,image/*,video/*" onChange=${(event) => { const [file] = event.currentTarget.files; if (file) check(file, file.name); event.currentTarget.value = ""; }} />
  </div>`;
}

// What was dropped here, before or now: each is checked again when it is opened, since the engine may be another one.
function useDropped(route) {
  const [dropped, setDropped] = useState(readDropped);
  const [report, setReport] = useState(null); // of the one that is open
  const id = (route.rest[0] || "").startsWith(OWN) ? route.rest[0].slice(OWN.length) : "";
  const entry = dropped.find((one) => one.id === id);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!entry || (report && report.id === id)) return undefined;
    const stop = new AbortController();
    let timer = 0;
    const lose = (error) => { sayFailure(error); if (error.status === 503) timer = setTimeout(() => setTurn(turn + 1), ENGINE_AGAIN_MS); };
    post("workflow-check", entry.workflow, { signal: stop.signal }).then((found) => setReport({ ...found, name: entry.name, isRemade: entry.isRemade, id, key: Math.random() }), lose);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [id, turn]);
  function open(found) {
    const opened = { id: idOf(found.workflow, found.name), name: found.name, workflow: found.workflow, isRemade: found.isRemade };
    setDropped(keep(dropped, opened));
    setReport({ ...found, id: opened.id, key: Math.random() });
    location.hash = `#/run/${encodeURIComponent(OWN + opened.id)}`;
  }
  function drop(one) {
    setDropped(forget(dropped, one.id));
    if (one.id === id) location.hash = "#/run";
  }
  return { dropped, entry, report: report && entry && report.id === id ? report : null, open, drop };
}

// An engine that starts has no workflows yet: asked again until it has.
function useWorkflows() {
  const isOpen = useStore((s) => s.live);
  const [turn, setTurn] = useState(0);
  const loaded = useLoaded((signal) => get("workflows", {}, { signal }), [isOpen, turn]);
  useEffect(() => {
    if (!loaded.error) return undefined;
    const timer = setTimeout(() => setTurn(turn + 1), ENGINE_AGAIN_MS);
    return () => clearTimeout(timer);
  }, [loaded.error]);
  return loaded;
}

function List({ workflows, error, dropped, chosen, onRemove, onReport }) {
  const own = (one) => OWN + one.id;
  const entry = (name, title) => html`<a class="run-name ellipsis" href=${`#/run/${encodeURIComponent(name)}`} aria-current=${name === chosen ? "page" : undefined}>${title}</a>`;
  return html`<nav class="run-list" aria-label=${t("workflows")}>
    <h2>${t("workflows")}</h2>
    ${(workflows || []).map((one) => html`<div key=${one.name} class="run-entry">${entry(one.name, one.title || one.name)}</div>`)}
    ${dropped.map((one) => html`<div key=${own(one)} class="run-entry">${entry(own(one), one.name || t("own workflow"))}
      <${IconButton} icon="close" label=${t("remove name", { name: one.name || t("own workflow") })} onClick=${() => onRemove(one)} /></div>`)}
    ${!workflows && !error && html`<p class="dim">${t("loading")}</p>`}
    ${error && html`<p class="dim">${error.body && error.body.error_type === "NotReady" ? t("engine starts") : told(error)}</p>`}
    ${workflows && workflows.length + dropped.length === 0 && html`<p class="dim">${t("none yet")}</p>`}
    <${Drop} onReport=${onReport} />
  </nav>`;
}

export function View({ route }) {
  const { data: workflows, error } = useWorkflows();
  const { dropped, entry, report, open, drop } = useDropped(route);
  const [results, setResults] = useState(() => { try { return JSON.parse(sessionStorage.getItem("comfypin.runs")) || []; } catch { return []; } });
  const chosen = entry || !(route.rest[0] || "").startsWith(OWN) ? route.rest[0] || (workflows && workflows[0] && workflows[0].name) || "" : "";
  const workflow = entry ? report && { name: report.name, own: report.workflow, inputs: report.inputs } : (workflows || []).find((one) => one.name === chosen);
  const resultsList = useRef(null);
  function taken(id, name) {
    // On a narrow screen they are below the form.
    if (innerWidth <= 1100) setTimeout(() => resultsList.current.scrollIntoView({ block: "start", behavior: "smooth" }), 50);
    setResults((old) => {
      const now = [{ id, name }, ...old].slice(0, 40);
      try { sessionStorage.setItem("comfypin.runs", JSON.stringify(now)); } catch { /* nothing is kept */ }
      return now;
    });
  }
  const [changed, setChanged] = useState([]); // targets of the form that are not as they were checked
  const [given, setGiven] = useState(null); // values for a form of the server's
  const from = route.query.get("from"); // a job whose workflow is to be changed
  useEffect(() => { if (given && chosen !== given.name) setGiven(null); }, [chosen]);
  useEffect(() => {
    if (!from) return;
    const openForm = (found) => {
      if (!found.served) { open(found); return; }
      setGiven({ name: found.served.name, values: found.values, key: Math.random() });
      location.hash = `#/run/${encodeURIComponent(found.served.name)}`;
    };
    formOfJob(from).then(openForm, (failure) => { sayFailure(failure); location.hash = "#/run"; });
  }, [from]);
  const isGiven = Boolean(given && !entry && workflow && workflow.name === given.name);
  const isLoading = Boolean(from) || (entry ? !report : !workflows && !error);
  return html`<div class="page run">
    <h1 class="visually-hidden">${t("run")}</h1>
    <${List} workflows=${workflows} error=${error} dropped=${dropped} chosen=${chosen} onRemove=${drop} onReport=${open} />
    <section class="run-form" aria-label=${t("settings")} aria-busy=${isLoading ? "true" : "false"}>
      ${isLoading && html`<p class="empty">${t("loading")}</p>`}
      ${workflows && !workflow && !isLoading && html`<${Empty} title=${t("no workflows")}><p>${t("drop workflow")}</p><//>`}
      ${report && html`<${Findings} report=${report} changed=${changed} />`}
      ${workflow && (!report || report.runs || report.inputs.length > 0) && html`<${Form} key=${report ? report.key : isGiven ? given.key : workflow.name} workflow=${workflow} given=${isGiven ? given.values : null} isRemade=${isGiven || Boolean(report && report.isRemade)} onTaken=${taken} onChanged=${setChanged}
        wrong=${report ? report.findings.filter((finding) => isError(finding) && finding.input).map((finding) => `${finding.node}.${finding.input}`) : []} isBlocked=${Boolean(report && openFindings(report, changed).some(isError))} />`}
    </section>
    <section class="run-results" ref=${resultsList} aria-label=${t("results")}>
      ${results.length === 0 ? html`<p class="empty">${t("results come here")}</p>` : results.map((one) => html`<${Result} key=${one.id} id=${one.id} name=${one.name} />`)}
    </section>
  </div>`;
}
