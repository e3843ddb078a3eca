// Running: a form for each workflow of the server, or for any workflow that is dropped or pasted, and what came of it.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { post, get } from "./api.js";
import { readTable, runsOf } from "./batch.js";
import { Field, groupsOf, startValue } from "./fields.js";
import { read, t, write } from "./i18n.js";
import { OutputTile, outputsOf } from "./job.js";
import { Presets } from "./presets.js";
import { ProgressLine } from "./queue.js";
import { isPending, useStore } from "./store.js";
import { English, Finding, causeOf, told } from "./told.js";
import { Empty, Icon, Progress, StatusMark, say, sayFailure, shortId, useLoaded } from "./ui.js";

const MAIN = ["prompt", "seed", "size", "file", "model"];
const OWN = "\u0000own";
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
  return post("run", { input: { workflow: workflow.own, ...(workflow.name && { title: workflow.name.slice(0, 200) }), set, ...(inputs.length && { inputs }) } });
}

// What nearly everybody sets, and the rest. Files come before sizes, and of many sizes only the first: unless the
// workflow's author chose the inputs and their order.
function divide(workflow) {
  const main = workflow.inputs.filter((input) => MAIN.includes(input.kind) || input.required);
  if (!workflow.title && !workflow.description) {
    const sized = [...new Set(main.filter((input) => input.kind === "size").map((input) => nodeOf(input.target)))];
    const isHidden = (input) => input.kind === "size" && !input.required && sized.indexOf(nodeOf(input.target)) >= MOST_SIZES;
    const order = ["prompt", "file"];
    const place = (input) => (order.includes(input.kind) ? order.indexOf(input.kind) : order.length);
    const shown = main.filter((input) => !isHidden(input)).sort((one, other) => place(one) - place(other));
    return [shown, workflow.inputs.filter((input) => !shown.includes(input))];
  }
  return [main, workflow.inputs.filter((input) => !main.includes(input))];
}

// What a browser keeps of a form: no files, they are large and lie on the disk anyway.
const keepable = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => typeof value !== "string" || !value.startsWith("data:")));

function Form({ workflow, onTaken, onChanged }) {
  const kept = `form.${workflow.name}`;
  const [values, setValues] = useState(() => {
    const old = workflow.own ? {} : read(kept, {});
    return Object.fromEntries(workflow.inputs.map((input) => [input.name, old[input.name] ?? startValue(input)]));
  });
  const [rolls, setRolls] = useState(() => Object.fromEntries(workflow.inputs.filter((input) => input.kind === "seed").map((input) => [input.name, true])));
  const [times, setTimes] = useState(1);
  const [table, setTable] = useState("");
  const [isBusy, setBusy] = useState(false);
  const set = (name, value) => setValues((old) => ({ ...old, [name]: value }));
  const [main, rest] = divide(workflow);
  useEffect(() => onChanged(workflow.inputs.filter((input) => values[input.name] !== input.default).map((input) => input.target)), [values]);
  const parsed = table.trim() ? readTable(table, workflow.inputs) : { rows: [], error: null };

  async function send(event) {
    event.preventDefault();
    if (parsed.error) { say(parsed.error, "bad"); return; }
    setBusy(true);
    try {
      const runs = runsOf(workflow.inputs, values, { rolls, times, rows: parsed.rows });
      for (const run of runs) {
        const taken = await submit(workflow, run);
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
    ${rest.length > 0 && html`<details open=${main.length === 0}><summary>${t("more settings", { n: rest.length })}</summary><div class="form-rest">${fields(rest)}</div></details>`}
    <details><summary>${t("batch")}</summary><div class="form-rest">
      <${Presets} workflow=${workflow.name} current=${() => ({ values: keepable(values), table, times, rolls })}
        onPick=${(preset) => { setValues((old) => ({ ...old, ...Object.fromEntries(Object.entries(preset.values || {}).filter(([name]) => name in old)) })); setTable(preset.table || ""); setTimes(preset.times || 1); setRolls(preset.rolls || {}); }} />
      <label class="field"><span class="field-name">${t("times")}</span><input type="number" min="1" max="200" value=${times} onInput=${(event) => setTimes(Math.min(200, Math.max(1, Number(event.currentTarget.value) || 1)))} /></label>
      <label class="field"><span class="field-name">${t("table")}</span><textarea rows="4" spellcheck="false" class="mono" value=${table} placeholder=${`${(main[0] || rest[0] || { name: "seed" }).name}\n…\n…`} onInput=${(event) => setTable(event.currentTarget.value)} /></label>
      <p class=${parsed.error ? "wrong small" : "dim small"}>${parsed.error || t("table help", { n: parsed.rows.length })}</p></div></details>
    <div class="form-end"><button class="primary run-button" type="submit" disabled=${isBusy}><${Icon} name="run" /> ${t("run now", { n: times * Math.max(1, parsed.rows.length) })}</button></div>
  </form>`;
}

function Result({ id, name }) {
  const job = useStore((s) => s.jobs.get(id));
  const preview = useStore((s) => s.previews.get(id));
  const { data } = useLoaded((signal) => (job && !isPending(job) && job.output_count ? get(`jobs/${id}`, {}, { signal }) : Promise.resolve(null)), [id, job && job.status]);
  const outputs = data ? outputsOf(data.output) : [];
  return html`<article class="result card" aria-label=${`${name} ${shortId(id)}`}>
    <p class="row"><a class="title ellipsis" href=${`#/job/${id}`}>${name}</a>${job ? html`<${StatusMark} status=${job.status} />` : null}</p>
    ${job && job.status === "IN_PROGRESS" && html`${preview && html`<img class="result-preview" src=${preview} alt=${t("preview")} />`}<div class="result-progress"><${ProgressLine} job=${job} /></div>`}
    ${job && job.status === "IN_QUEUE" && html`<${Progress} value=${0} label=${name} />`}
    ${job && job.error && html`<p class="wrong small failure-text">${causeOf(job.error) && html`<strong>${causeOf(job.error)}</strong>
`}<${English} text=${job.error.message} /></p>`}
    ${outputs.length > 0 && html`<div class=${outputs.length === 1 ? "result-one" : "tiles"}>${outputs.map((output) => html`<${OutputTile} key=${output.position} jobId=${id} output=${output} />`)}</div>`}
  </article>`;
}

function Findings({ report: checked, changed }) {
  // What was wrong with a value that is another one now is not shown any longer.
  const findings = checked.findings.filter((finding) => !finding.input || !changed.includes(`${finding.node}.${finding.input}`));
  const report = { findings, runs: !findings.some((finding) => finding.severity === "error") };
  if (!findings.length && checked.findings.length) return null;
  if (!report.findings.length) return html`<p class="good-line"><span class="mark mark-done">${t("runs here")}</span></p>`;
  return html`<section class=${report.runs ? "warnings" : "failure"}><h2>${report.runs ? t("warnings") : t("cannot run here")}</h2><ul>
    ${report.findings.map((finding, place) => html`<li key=${place}>${finding.node && html`<strong>${finding.title || finding.class_type || `#${finding.node}`}: </strong>`}<${Finding} finding=${finding} />
      ${finding.pin && html` <span class="chip">${t("pin", { name: finding.pin })}</span>`}${finding.pack && finding.pack !== finding.pin && html` <span class="chip">${t("pack", { name: finding.pack })}</span>`}</li>`)}
  </ul></section>`;
}

// The workflow of a job with all that was set in it, as a form.
async function formOfJob(id) {
  const [job, graph] = await Promise.all([get(`jobs/${encodeURIComponent(id)}`), get(`jobs/${encodeURIComponent(id)}/workflow`)]);
  return { ...(await post("workflow-check", graph)), name: job.workflow || "" };
}

function Drop({ onReport }) {
  const [isOver, setOver] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const picker = useRef(null);
  async function check(blob, name) {
    setBusy(true);
    try {
      const report = await post("workflow-check", blob, { type: blob.type === "application/json" ? "application/json" : "application/octet-stream" });
      onReport({ ...report, name: (name || "").replace(/\.(json|png|webp|jpe?g|mp4|webm)$/i, "") });
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

export function View({ route }) {
  const isOpen = useStore((s) => s.live);
  const { data: workflows, error } = useLoaded((signal) => get("workflows", {}, { signal }), [isOpen]);
  const [own, setOwn] = useState(null);
  const [results, setResults] = useState(() => { try { return JSON.parse(sessionStorage.getItem("comfypin.runs")) || []; } catch { return []; } });
  const chosen = route.rest[0] || (own && OWN) || (workflows && workflows[0] && workflows[0].name) || "";
  const workflow = chosen === OWN ? own && { name: own.name, own: own.workflow, inputs: own.inputs } : (workflows || []).find((one) => one.name === chosen);
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
  const from = route.query.get("from"); // a job whose workflow is to be changed
  useEffect(() => {
    if (!from) return;
    formOfJob(from).then(report, (error) => { sayFailure(error); location.hash = "#/run"; });
  }, [from]);
  function report(found) { setOwn({ ...found, key: Math.random() }); location.hash = `#/run/${encodeURIComponent(OWN)}`; }
  return html`<div class="page run">
    <h1 class="visually-hidden">${t("run")}</h1>
    <nav class="run-list" aria-label=${t("workflows")}>
      <h2>${t("workflows")}</h2>
      ${(workflows || []).map((one) => html`<a key=${one.name} class="run-name ellipsis" href=${`#/run/${encodeURIComponent(one.name)}`} aria-current=${one.name === chosen ? "page" : undefined}>${one.title || one.name}</a>`)}
      ${own && html`<a class="run-name ellipsis" href=${`#/run/${encodeURIComponent(OWN)}`} aria-current=${chosen === OWN ? "page" : undefined}>${own.name || t("own workflow")}</a>`}
      ${error && html`<p class="dim">${error.status === 503 ? t("engine starts") : told(error)}</p>`}
      <${Drop} onReport=${report} />
    </nav>
    <section class="run-form" aria-label=${t("settings")}>
      ${workflows && !workflow && !from && html`<${Empty} title=${t("no workflows")}><p>${t("drop workflow")}</p><//>`}
      ${chosen === OWN && own && html`<${Findings} report=${own} changed=${changed} />`}
      ${workflow && (chosen !== OWN || own.runs || own.inputs.length > 0) && html`<${Form} key=${chosen === OWN ? own.key : workflow.name} workflow=${workflow} onTaken=${taken} onChanged=${setChanged} />`}
    </section>
    <section class="run-results" ref=${resultsList} aria-label=${t("results")}>
      ${results.length === 0 ? html`<p class="empty">${t("results come here")}</p>` : results.map((one) => html`<${Result} key=${one.id} id=${one.id} name=${one.name} />`)}
    </section>
  </div>`;
}
