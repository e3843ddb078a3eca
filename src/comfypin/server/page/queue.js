// The queue: what runs, what waits, what ended, as one page that moves by itself.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { cancelJob, moveJob, retryJob } from "./actions.js";
import { get, post } from "./api.js";
import { ago, bytes, clock, seconds, t } from "./i18n.js";
import { noteOf } from "./notes.js";
import { byNewest, canRetry, isPending, secondsLeft, store, useStore } from "./store.js";
import { English, causeOf, inOneLine } from "./told.js";
import { Empty, Icon, IconButton, Progress, StatusMark, Strip, jobTitle, sayFailure, shortId, useTick } from "./ui.js";

const since = (iso) => (Date.now() - Date.parse(iso)) / 1000;
export const duration = (job) =>
  job.started_at ? (job.finished_at ? (Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000 : since(job.started_at)) : null;

export function ProgressLine({ job }) {
  const progress = job.progress || {};
  const { phase, fraction } = progress;
  // Nodes are done when outputs are collected.
  const node = phase !== "collect" && phase !== "deliver" && (progress.node_title || progress.node_id);
  const steps = progress.steps > 1 ? `${progress.step}/${progress.steps}` : "";
  // A node without steps has no percent, as long as nothing else is done.
  const percent = fraction ? `${Math.round(fraction * 100)}%` : "";
  const arrived = progress.done_bytes == null ? "" : [progress.done_bytes, progress.total_bytes].filter((size) => size != null).map(bytes).join(" / ");
  return html`
    <${Progress} value=${fraction} label=${t("progress of", { name: jobTitle(job) })} />
    <p class="progress-line"><span class="ellipsis">${node || (phase && phase !== "run" ? t(`doing ${phase}`) : t("starting"))} ${progress.model || ""}</span>
      <span class="num">${[steps, arrived, percent].filter(Boolean).join(" · ")}</span></p>`;
}

function RunningCard({ job }) {
  const preview = useStore((s) => s.previews.get(job.id));
  useTick(1000);
  return html`<article class="card running" aria-label=${t("running job", { name: jobTitle(job) })}>
    <a class="running-picture" href=${`#/job/${job.id}`} aria-label=${t("open job", { name: jobTitle(job) })}>
      ${preview ? html`<img src=${preview} alt=${t("preview")} />` : html`<span class="shimmer" />`}
    </a>
    <div class="running-body">
      <div class="row"><a class="title ellipsis" href=${`#/job/${job.id}`}>${jobTitle(job)}</a>
        <button type="button" aria-label=${t("cancel job", { name: jobTitle(job) })} onClick=${() => cancelJob(job)}><${Icon} name="stop" /> ${t("cancel")}</button></div>
      ${noteOf(job.id) && html`<p class="note small dim">${noteOf(job.id)}</p>`}
      <${ProgressLine} job=${job} />
      <p class="facts"><span class="num">${seconds(duration(job))}</span>
        ${secondsLeft(job) !== null && html`<span>${t("left", { time: seconds(secondsLeft(job)) })}</span>`}
        ${job.release && html`<span class="chip">${job.release}</span>`}<code>${shortId(job.id)}</code></p>
    </div>
  </article>`;
}

// As the server lets them begin.
const byTurn = (one, other) => (other.priority || 0) - (one.priority || 0) || -byNewest(one, other);

function WaitingRow({ job, place, waiting }) {
  return html`<li class="line">
    <span class="place num" title=${t("position")}>${place}</span>
    <a class="title ellipsis" href=${`#/job/${job.id}`}>${jobTitle(job)}${noteOf(job.id) && html` <span class="note small dim">${noteOf(job.id)}</span>`}</a>
    ${job.release && html`<span class="chip wide-only">${job.release}</span>`}
    <span class="dim num">${secondsLeft(job) !== null ? t("done in", { time: seconds(secondsLeft(job)) }) : t("waits", { time: seconds(since(job.created_at)) })}</span>
    ${store.queue.can_reorder && waiting.length > 1 && html`<${IconButton} icon="first" label=${t("run next", { name: jobTitle(job) })} disabled=${place === 1} onClick=${() => moveJob(job, waiting, true)} />
      <${IconButton} icon="last" className="wide-only" label=${t("run last", { name: jobTitle(job) })} disabled=${place === waiting.length} onClick=${() => moveJob(job, waiting, false)} />`}
    <${IconButton} icon="close" label=${t("cancel job", { name: jobTitle(job) })} onClick=${() => cancelJob(job)} />
  </li>`;
}

export function EndedRow({ job }) {
  return html`<li class="line ended">
    <a class="ended-link" href=${`#/job/${job.id}`} aria-label=${`${jobTitle(job)}, ${t(job.status)}, ${shortId(job.id)}`}></a>
    <${StatusMark} status=${job.status} />
    <span class="ended-name"><span class="title ellipsis">${jobTitle(job)}${noteOf(job.id) && html` <span class="note small dim">${noteOf(job.id)}</span>`}</span>
      ${job.error ? html`<span class="wrong small ellipsis" title=${job.error.message}>${causeOf(job.error) || html`<${English} text=${inOneLine(job.error.message)} />`}</span>` : html`<span class="dim small ellipsis"><code>${shortId(job.id)}</code>${job.release && ` · ${job.release}`}</span>`}</span>
    <${Strip} job=${job} />
    <span class="dim num ended-time">${seconds(duration(job))}</span>
    <time class="dim num ended-time" dateTime=${job.finished_at} title=${job.finished_at ? clock(job.finished_at) : ""}>${job.finished_at ? ago(job.finished_at) : ""}</time>
    ${canRetry(job) ? html`<${IconButton} icon="retry" className="above" label=${t("retry job", { name: jobTitle(job) })} onClick=${() => retryJob(job)} />` : html`<span class="icon-gap" />`}
  </li>`;
}

const endStates = ["COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"];

function matches(job, filter) {
  if (filter.state && job.status !== filter.state) return false;
  return !filter.text || `${job.id} ${job.workflow || ""} ${job.error ? job.error.message : ""}`.toLowerCase().includes(filter.text.toLowerCase());
}

// Only the page of a fleet needs it.
function Workers() {
  const [loaded, setLoaded] = useState(null);
  useEffect(() => { import("./fleet.js").then(({ Fleet }) => setLoaded({ Fleet }), () => {}); }, []);
  return loaded && html`<${loaded.Fleet} />`;
}

const SHOWN_ENDED = 100; // and as many more each time

export function QueueView() {
  const jobs = useStore((s) => s.jobs);
  useTick(5000);
  const [filter, setFilter] = useState({ state: "", text: "" });
  const [older, setOlder] = useState({ jobs: [], next: undefined, isBusy: false });
  const [most, setMost] = useState(SHOWN_ENDED);
  const all = [...jobs.values()];
  const running = all.filter((job) => job.status === "IN_PROGRESS").sort((a, b) => -byNewest(a, b));
  const waiting = all.filter((job) => job.status === "IN_QUEUE").sort(byTurn);
  const isFiltered = Boolean(filter.state || filter.text);
  const live = all.filter((job) => !isPending(job) && matches(job, filter));
  const merged = new Map([...older.jobs.filter((job) => !isPending(job)), ...live].map((job) => [job.id, jobs.get(job.id) || job]));
  const ended = [...merged.values()].filter((job) => !isPending(job)).sort(byNewest);

  // What is known here already comes first.
  function showMore() {
    setMost(most + SHOWN_ENDED);
    if (ended.length < most + SHOWN_ENDED && older.next !== null) load(older.next);
  }
  async function load(after) {
    setOlder((old) => ({ ...old, isBusy: true }));
    try {
      const answer = await get("jobs", { state: filter.state || endStates.join(","), text: filter.text, after, limit: 100 });
      setOlder((old) => ({ jobs: after ? [...old.jobs, ...answer.jobs] : answer.jobs, next: answer.next, isBusy: false }));
    } catch (error) { sayFailure(error); setOlder((old) => ({ ...old, isBusy: false })); }
  }
  useEffect(() => {
    setOlder({ jobs: [], next: undefined, isBusy: false });
    setMost(SHOWN_ENDED);
    if (!isFiltered) return undefined;
    const timer = setTimeout(() => load(), 250); // texts of prompts are searched by the server
    return () => clearTimeout(timer);
  }, [filter.state, filter.text]);

  return html`<div class="page queue">
    <h1 class="visually-hidden">${t("queue")}</h1>
    ${running.length > 0 && html`<section aria-label=${t("running")}><h2>${t("running")}</h2>
      <div class="cards">${running.map((job) => html`<${RunningCard} key=${job.id} job=${job} />`)}</div></section>`}
    ${waiting.length > 0 && html`<section aria-label=${t("waiting")}><div class="row"><h2>${t("waiting")} <span class="count num">${waiting.length}</span></h2>
      <button type="button" class="text-button" onClick=${() => confirm(t("cancel all?", { n: waiting.length })) && post("purge-queue").catch(sayFailure)}>${t("cancel all")}</button></div>
      <ol class="lines">${waiting.slice(0, 100).map((job, place) => html`<${WaitingRow} key=${job.id} job=${job} place=${place + 1} waiting=${waiting} />`)}</ol>
      ${waiting.length > 100 && html`<p class="dim">${t("and more", { n: waiting.length - 100 })}</p>`}</section>`}
    ${store.queue.runs_here === false && html`<${Workers} />`}
    ${(ended.length > 0 || isFiltered || running.length + waiting.length === 0) && html`<section aria-label=${t("ended")}>
      <div class="row wrap"><h2>${t("ended")}</h2>
        <div class="filters">
          <input type="search" placeholder=${t("search jobs")} aria-label=${t("search jobs")} value=${filter.text} onInput=${(event) => setFilter({ ...filter, text: event.currentTarget.value })} />
          <select aria-label=${t("state")} value=${filter.state} onChange=${(event) => setFilter({ ...filter, state: event.currentTarget.value })}>
            <option value="">${t("all states")}</option>${endStates.map((state) => html`<option key=${state} value=${state}>${t(state)}</option>`)}</select>
        </div></div>
      ${ended.length > 0
        ? html`<ol class="lines">${ended.slice(0, most).map((job) => html`<${EndedRow} key=${job.id} job=${job} />`)}</ol>`
        : html`<${Empty} title=${isFiltered ? t("nothing found") : t("no jobs yet")}><p>${isFiltered
          ? html`<button type="button" onClick=${() => setFilter({ state: "", text: "" })}>${t("show all")}</button>`
          : html`<a class="primary" href="#/run"><${Icon} name="run" /> ${t("run a workflow")}</a>`}</p><//>`}
      ${(older.next || ended.length > most || (older.next === undefined && ended.length >= 50)) && html`<p class="center"><button type="button" disabled=${older.isBusy} onClick=${showMore}>${t("older jobs")}</button></p>`}
    </section>`}
  </div>`;
}
