// One job: what went in, what came out, where the time went, and what went wrong.
import { html, useState } from "./vendor/htm-preact.js";
import { cancelJob, retryJob, runAgain, saveForComfy } from "./actions.js";
import { address, get } from "./api.js";
import { nodeLabel } from "./fields.js";
import { ago, bytes, clock, seconds, t } from "./i18n.js";
import { noteOf } from "./notes.js";
import { duration, ProgressLine } from "./queue.js";
import { canRetry, isPending, useStore } from "./store.js";
import { English, Findings, causeOf, listedFindings, told, withCode } from "./told.js";
import { Empty, FirstFrame, Icon, StatusMark, copyText, jobTitle, thumbnail, useLoaded, useTick } from "./ui.js";

const lists = ["images", "videos", "audio", "files"];
export const outputsOf = (output) => lists.flatMap((name) => (output && Array.isArray(output[name]) ? output[name] : [])).map((one, position) => ({ ...one, position }));
const kindIcon = { image: "gallery", video: "video", audio: "audio", "3d": "cube", text: "text" };

export function OutputTile({ jobId, output }) {
  const [isBroken, setBroken] = useState(false);
  const [isUnseen, setUnseen] = useState(false);
  const label = output.filename || `${output.position}`;
  const canShow = (output.kind === "image" || output.kind === "video") && !isBroken;
  const isDrawn = canShow || (output.kind === "video" && !isUnseen); // else its card says what it is
  return html`<a class="tile" href=${`#/gallery?show=${jobId}/${output.position}`} aria-label=${isDrawn ? t("open output", { name: label }) : undefined}>
    ${canShow
      ? html`<img src=${thumbnail(jobId, output.position)} alt="" loading="lazy" decoding="async" onError=${() => setBroken(true)} />`
      : output.kind === "video" && !isUnseen ? html`<${FirstFrame} source=${address(`jobs/${jobId}/outputs/${output.position}`, { redirect: 0 })} onBroken=${() => setUnseen(true)} />`
      : html`<span class="tile-card"><${Icon} name=${kindIcon[output.kind] || "file"} /><span class="ellipsis">${label}</span><span class="dim small">${bytes(output.size_bytes)}</span></span>`}
  </a>`;
}

function Timeline({ spans, label }) {
  const entries = Object.entries(spans || {}).filter(([, value]) => value > 0);
  const total = entries.reduce((sum, [, value]) => sum + value, 0);
  if (!total) return null;
  return html`<div class="timeline" role="img" aria-label=${`${label}: ${entries.map(([name, value]) => `${name} ${seconds(value)}`).join(", ")}`}>
    ${entries.map(([name, value], place) => html`<span key=${name} class=${`span span-${place % 6}`} style=${{ flexGrow: value / total }} title=${`${name}: ${seconds(value)}`} />`)}
  </div>
  <ul class="legend">${entries.map(([name, value], place) => html`<li key=${name}><span class=${`swatch span-${place % 6}`} />${t(`phase ${name}`) === `phase ${name}` ? name : t(`phase ${name}`)} <span class="num dim">${seconds(value)}</span></li>`)}</ul>`;
}

function NodeTimes({ nodes, titles }) {
  const entries = Object.entries(nodes || {}).sort((a, b) => b[1] - a[1]).slice(0, 12);
  if (!entries.length) return null;
  const most = entries[0][1] || 1;
  const isShared = (id) => Object.keys(nodes).some((other) => other !== id && titles[other] === titles[id]);
  return html`<section><h2>${t("node seconds")}</h2><table class="bars"><tbody>
    ${entries.map(([id, value]) => html`<tr key=${id}><th scope="row" class="ellipsis">${titles[id] || `#${id}`}${titles[id] && isShared(id) && html`<span class="dim"> #${id}</span>`}</th>
      <td class="bars-cell"><span class="bars-fill" style=${{ width: `${Math.max(1, (value / most) * 100)}%` }} /></td><td class="num">${seconds(value)}</td></tr>`)}
  </tbody></table></section>`;
}

function Json({ title, value }) {
  if (value === undefined || value === null) return null;
  const text = JSON.stringify(value, null, 2);
  return html`<details class="json"><summary>${title} <span class="dim small">${bytes(text.length)}</span></summary>
    <div class="json-body"><button type="button" class="json-copy" onClick=${() => copyText(text)}><${Icon} name="copy" /> ${t("copy")}</button>
    <pre tabindex="0" aria-label=${title}>${text.length > 400_000 ? `${text.slice(0, 400_000)}…` : text}</pre></div></details>`;
}

function Failure({ error }) {
  if (!error) return null;
  const { family, remedy, remedy_name: named, node_id: node, class_type: kind, log = [] } = error;
  const cause = causeOf(error);
  const findings = listedFindings(error);
  // The engine's log stands below by itself.
  const message = log.length ? error.message.split("\n  | ")[0] : error.message;
  return html`<section class="failure" aria-label=${t("failed because")}>
    <h2><${Icon} name="warn" /> ${cause || (findings ? t("cannot run here") : error.name)} ${family && html`<span class="chip">${t(`family ${family}`) === `family ${family}` ? family : t(`family ${family}`)}</span>`}
      ${node && html`<span class="chip">${kind || ""} #${node}</span>`}</h2>
    ${findings
      ? html`<${Findings} findings=${findings} />`
      : html`<p class="failure-text" lang="en">${cause && html`<strong>${error.name}: </strong>`}${message}</p>`}
    ${remedy && html`<p class="remedy"><strong>${t("what to do")}</strong> ${withCode(t(`remedy ${named}`) === `remedy ${named}` ? remedy : t(`remedy ${named}`))}</p>`}
    ${log.length > 0 && html`<details class="json"><summary>${t("log")} <span class="dim small">${t("lines n", { n: log.length })}</span></summary><pre class="log" tabindex="0" aria-label=${t("log")}>${log.join("\n")}</pre></details>`}
  </section>`;
}

function titlesOf(input) {
  const graph = input && input.workflow && (input.workflow.prompt || input.workflow);
  const titles = {};
  if (graph && typeof graph === "object" && !Array.isArray(graph.nodes)) {
    for (const [id, node] of Object.entries(graph)) if (node && node.class_type) titles[id] = (node._meta && node._meta.title) || node.class_type;
  }
  for (const node of (graph && Array.isArray(graph.nodes) && graph.nodes) || []) titles[node.id] = node.title || node.type;
  return titles;
}

// A workflow of the server is not in the job itself; its list of inputs names the nodes.
async function nodeNames(workflow, signal) {
  const found = workflow && (await get("workflows", {}, { signal })).find((one) => one.name === workflow);
  return Object.fromEntries(((found && found.inputs) || []).map((input) => [input.target.slice(0, input.target.lastIndexOf(".")), input.title || nodeLabel(input)]));
}

// What was set in it, if this browser did not note it: few and short values only.
// A seed that was drawn is known when the job has run.
function setOf(input, drawn = {}) {
  const set = Object.entries((input && input.set) || {}).filter(([, value]) => value !== "random" || Object.keys(drawn).length === 0);
  const entries = [...set, ...Object.entries(drawn)].map(([target, value]) => `${target.slice(target.lastIndexOf(".") + 1).replace(/_/g, " ")} ${value}`);
  return entries.filter((one) => one.length < 60).slice(0, 4).join(", ");
}

export function View({ route }) {
  const id = route.rest[0] || "";
  const known = useStore((s) => s.jobs.get(id));
  const preview = useStore((s) => s.previews.get(id));
  const { data, error } = useLoaded((signal) => get(`jobs/${encodeURIComponent(id)}`, {}, { signal }), [id, known && known.status]);
  const job = known || data;
  const { data: names } = useLoaded((signal) => nodeNames(job && job.workflow, signal), [job && job.workflow]);
  useTick(1000, Boolean(job && isPending(job)));
  if (!job) return html`<div class="page">${error ? html`<${Empty} title=${told(error)}><p><a href="#/queue">${t("to the queue")}</a></p><//>` : null}</div>`;
  const output = (data && data.output) || null;
  const outputs = isPending(job) ? [] : outputsOf(output);
  const times = (output && output.seconds) || {};
  const phases = (data && data.phases) || times.phases;
  const warnings = (output && output.warnings) || [];
  const note = noteOf(job.id) || setOf(data && data.input, (output && output.values) || {});
  async function again() {
    const newId = await runAgain(job.id);
    if (newId) location.hash = `#/job/${newId}`;
  }
  // What the workflow itself lacks fails again, unless it is changed.
  const isInvalid = Boolean(job.error && ["WorkflowInvalid", "OverrideInvalid"].includes(job.error.name));
  const change = html`<a class=${`button ${isInvalid ? "primary" : ""}`} href=${`#/run?from=${job.id}`}><${Icon} name="run" /> ${t("change and run")}</a>`;
  return html`<div class="page job">
    <div class="row wrap job-head">
      <div><h1>${jobTitle(job)}</h1>${note && html`<p class="note dim">${note}</p>`}
        <p class="facts"><${StatusMark} status=${job.status} />
          ${job.position && html`<span>${t("position n", { n: job.position })}</span>`}
          <span class="num">${seconds(duration(job))}</span>
          <time dateTime=${job.created_at} title=${clock(job.created_at)}>${ago(job.created_at)}</time>
          ${job.release && html`<span class="chip">${job.release}</span>`}
          <button type="button" class="text-button" title=${t("copy")} onClick=${() => copyText(job.id)}><code>${job.id}</code></button></p></div>
      <div class="row wrap job-tools">
        ${isPending(job) && html`<button type="button" onClick=${() => cancelJob(job)}><${Icon} name="stop" /> ${t("cancel")}</button>`}
        ${isInvalid && change}
        ${canRetry(job) && html`<button type="button" class=${isInvalid ? "" : "primary"} onClick=${() => retryJob(job)}><${Icon} name="retry" /> ${t("retry")}</button>`}
        ${!isPending(job) && html`<button type="button" onClick=${again}><${Icon} name="dice" /> ${t("another seed")}</button>`}
        ${!isInvalid && change}
        <button type="button" onClick=${() => saveForComfy(job.id, outputs[0] && { ...outputs[0], href: `jobs/${job.id}/outputs/0` })}><${Icon} name="graph" /> ${t("for ComfyUI")}</button>
      </div>
    </div>
    ${job.status === "IN_PROGRESS" && html`<section class="job-live">${preview && html`<img class="job-preview" src=${preview} alt=${t("preview")} />`}<div><${ProgressLine} job=${job} /></div></section>`}
    <${Failure} error=${job.error && { ...job.error, ...((data && data.error) || {}) }} />
    ${warnings.length > 0 && html`<section class="warnings" aria-label=${t("warnings")}><h2>${t("warnings")}</h2><ul>${warnings.map((text, place) => html`<li key=${place}><${English} text=${typeof text === "string" ? text : text.message || JSON.stringify(text)} /></li>`)}</ul></section>`}
    ${outputs.length > 0 && html`<section><h2>${t("outputs")} <span class="count num">${outputs.length}</span></h2>
      <div class="tiles">${outputs.map((one) => html`<${OutputTile} key=${one.position} jobId=${job.id} output=${one} />`)}</div></section>`}
    ${output && output.texts && Object.values(output.texts).flat().length > 0 && html`<section><h2>${t("texts")}</h2>${Object.values(output.texts).flat().map((text, place) => html`<p key=${place} class="text-output">${text}</p>`)}</section>`}
    <${NodeTimes} nodes=${times.nodes} titles=${{ ...names, ...titlesOf(data && data.input) }} />
    ${outputs.length > 0 && html`<section><h2>${t("files")}</h2><div class="scroll-x" tabindex="0" role="region" aria-label=${t("files")}><table class="table"><thead><tr><th scope="col">${t("name")}</th><th scope="col">${t("size")}</th><th scope="col">SHA-256</th><th scope="col">${t("where it is")}</th></tr></thead><tbody>
      ${outputs.map((one) => html`<tr key=${one.position}><td><a href=${address(`jobs/${job.id}/outputs/${one.position}`, { download: 1 })}>${one.filename}</a></td><td class="num">${bytes(one.size_bytes)}</td>
        <td><code class="hash" title=${one.sha256}>${(one.sha256 || "").slice(0, 16)}…</code></td>
        <td>${one.uri && html`<button type="button" class="text-button" title=${t("copy")} onClick=${() => copyText(one.uri)}><code>${one.uri}</code></button>`}</td></tr>`)}</tbody></table></div></section>`}
    <details class="technical"><summary>${t("technical details")}</summary><div class="technical-body">
      ${phases && html`<section><h2>${t("phases")}</h2><${Timeline} spans=${phases} label=${t("phases")} /></section>`}
      ${outputs.length > 0 && html`<p class="row wrap manifests"><a href=${address(`jobs/${job.id}/manifest`)} download>${t("manifest")}</a> <a href=${address(`jobs/${job.id}/manifest`, { format: "sha256" })} download>SHA256SUMS</a></p>`}
      <${Json} title=${t("input")} value=${data && data.input} /><${Json} title=${t("output")} value=${output} /></div></details>
  </div>`;
}
