// The workers of a fleet: what each has warm and runs, and what waits for which of them.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get } from "./api.js";
import { seconds, t } from "./i18n.js";
import { withCode } from "./told.js";
import { sayFailure, shortId } from "./ui.js";

const EVERY_MS = 5_000;

function stateOf(worker) {
  if (worker.stopping) return ["off", t("worker stops")];
  if (worker.jobs.length) return ["run", t("worker runs")];
  return worker.warm ? ["done", t("worker idle")] : ["wait", t("worker starts")];
}

function Worker({ worker }) {
  const [tone, state] = stateOf(worker);
  const cold = worker.releases.filter((release) => release !== worker.warm);
  return html`<li class="line worker">
    <span class=${`mark mark-${tone}`}>${state}</span>
    <span class="title worker-name"><span class="ellipsis">${worker.id}</span>
      <span class="dim small ellipsis">${[worker.gpu, worker.class === "any" ? "" : worker.class].filter(Boolean).join(" \u00b7 ")}</span></span>
    <span class="worker-releases">${worker.warm && html`<span class="chip chip-warm" title=${t("warm")}>${t("warm")}: ${worker.warm}</span>`}
      ${cold.map((release) => html`<span key=${release} class="chip" title=${t("serves too")}>${release}</span>`)}</span>
    <span class="worker-jobs">${worker.jobs.map((id) => html`<a key=${id} class="text-link" href=${`#/job/${id}`}><code>${shortId(id)}</code></a>`)}</span>
    <span class="dim num small worker-age" title=${t("seen ago", { time: seconds(worker.seen_s_ago) })}>${seconds(worker.age_s)}</span>
  </li>`;
}

function Lane({ lane }) {
  return html`<li class="line"><span class="title ellipsis">${lane.release}</span>
    <span class="chip">${lane.class === "any" ? t("any worker") : lane.class}</span>${lane.priority === "high" && html`<span class="chip">${t("first line")}</span>`}
    <span class="dim num">${t("running waiting", lane)}</span>${lane.waiting > 0 && html`<span class="dim num small">${t("oldest waits", { time: seconds(lane.oldest_wait_s) })}</span>`}</li>`;
}

export function Fleet() {
  const [fleet, setFleet] = useState(null);
  useEffect(() => {
    const load = () => { if (!document.hidden) get("fleet").then(setFleet, sayFailure); };
    load();
    const timer = setInterval(load, EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (!fleet) return null;
  const lanes = fleet.backlog.filter((lane) => lane.waiting || lane.running);
  return html`<section aria-label=${t("workers")}><h2>${t("workers")} <span class="count num">${fleet.workers.length}</span></h2>
    ${fleet.workers.length === 0 ? html`<p class="dim">${withCode(t("no workers"))}</p>` : html`<ul class="lines">${fleet.workers.map((worker) => html`<${Worker} key=${worker.id} worker=${worker} />`)}</ul>`}
    ${lanes.length > 0 && html`<ul class="lines" aria-label=${t("lanes")}>${lanes.map((lane) => html`<${Lane} key=${`${lane.release_key} ${lane.class} ${lane.priority}`} lane=${lane} />`)}</ul>`}
  </section>`;
}
