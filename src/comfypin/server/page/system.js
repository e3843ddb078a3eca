// The machine: what runs here, what it has, what it owes, and how the last day went.
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { get, post } from "./api.js";
import { ago, bytes, clock, language, number, seconds, t } from "./i18n.js";
import { English } from "./told.js";
import { Icon, IconButton, Progress, copyText, say, sayFailure, useLoaded } from "./ui.js";

const EVERY_MS = 10_000;

function Fact({ label, children }) {
  return html`<div class="fact"><dt>${label}</dt><dd>${children}</dd></div>`;
}

function Meter({ label, used, total }) {
  const share = total ? used / total : 0;
  return html`<div class="meter"><p class="row"><span class="ellipsis">${label}</span><span class="num dim">${t("free of", { free: bytes(total - used), total: bytes(total) })}</span></p>
    <div class=${share > 0.92 ? "meter-full" : ""}><${Progress} value=${share} label=${label} /></div></div>`;
}

// Bars of one series over the other; a gap is a time in which the server did not run.
function Chart({ title, values, over, show, begins, step }) {
  const most = Math.max(1e-9, ...values.map((value, place) => (value || 0) + ((over && over[place]) || 0)));
  const width = 100 / values.length;
  const total = values.reduce((sum, value) => sum + (value || 0), 0);
  const newest = [...values].reverse().find((value) => value !== null && value !== undefined);
  const at = (place) => new Date((begins + place * step) * 1000).toLocaleTimeString(language, { hour: "2-digit", minute: "2-digit" });
  return html`<figure class="chart card"><figcaption class="row"><span>${title}</span><span class="num dim">${show(total, newest, most)}</span></figcaption>
    <svg viewBox="0 0 100 32" preserveAspectRatio="none" role="img" aria-label=${`${title}: ${show(total, newest, most)}`}>
      ${values.map((value, place) => {
        const height = ((value || 0) / most) * 31, above = (((over && over[place]) || 0) / most) * 31;
        return value == null && !above ? null : html`<g key=${place}><rect class="chart-bar" x=${place * width} width=${width * 0.8} y=${32 - Math.max(height, value != null ? 0.4 : 0)} height=${Math.max(height, value != null ? 0.4 : 0)} />
          ${above > 0 && html`<rect class="chart-bad" x=${place * width} width=${width * 0.8} y=${32 - height - above} height=${above} />`}</g>`;
      })}</svg>
    <p class="row small dim"><span>${at(0)}</span><span>${t("now")}</span></p></figure>`;
}

function Sync({ sync }) {
  return html`<dl class="facts-list">
      <${Fact} label=${t("destination")}><code>${sync.destination}</code><//>
      <${Fact} label=${t("delivered")}><span class="num">${number(sync.done)}</span><//>
      <${Fact} label=${t("owed")}><span class=${`num ${sync.owed ? "wait" : ""}`}>${number(sync.owed)} · ${bytes(sync.owed_bytes)}</span><//>
      ${sync.oldest_owed_at && html`<${Fact} label=${t("oldest debt")}>${ago(sync.oldest_owed_at)}<//>`}
      <${Fact} label=${t("failing")}><span class=${sync.failing ? "wrong num" : "num"}>${number(sync.failing)}</span><//>
    </dl>
    ${sync.failures.length > 0 && html`<ul class="lines">${sync.failures.map((one) => html`<li key=${one.path} class="line"><span class="title ellipsis">${one.path}</span><span class="wrong small ellipsis" lang="en" title=${one.reason}>${one.reason}</span><span class="num dim">×${one.failures}</span></li>`)}</ul>`}`;
}

// What webhooks could not be told, and one more try of each.
function FailedWebhooks({ count }) {
  const [tried, setTried] = useState(0);
  const { data } = useLoaded((signal) => get("webhooks", { failed: 1, limit: 20 }, { signal }), [count, tried]);
  async function retry(one) {
    try {
      const { delivered, reason } = await post(`webhooks/${one.id}/retry`);
      say(delivered ? t("delivered now") : reason, delivered ? "info" : "bad");
    } catch (error) { sayFailure(error); }
    setTried(tried + 1);
  }
  const failed = (data && data.failed) || [];
  return failed.length > 0 && html`<section aria-label=${t("webhooks failed")} class="card panel models"><h2>${t("webhooks failed")} <span class="count num">${count}</span></h2>
    <ul class="lines">${failed.map((one) => html`<li key=${one.id} class="line"><a class="title ellipsis" href=${`#/job/${one.job_id}`}>${one.host}</a>
      <span class="wrong small ellipsis" lang="en" title=${one.reason}>${one.reason}</span><time class="dim num small" title=${clock(one.failed_at)}>${ago(one.failed_at)}</time>
      ${one.can_retry ? html`<${IconButton} icon="retry" label=${t("retry webhook", { name: one.host })} onClick=${() => retry(one)} />` : html`<span class="icon-gap" />`}</li>`)}</ul></section>`;
}

// What has nothing to show, folded to its heading.
const Folded = ({ title, text }) => html`<details class="card panel folded"><summary>${title}</summary><p class="dim">${text}</p></details>`;

function Models({ models }) {
  const [text, setText] = useState("");
  const shown = models.filter((model) => `${model.path} ${model.name}`.toLowerCase().includes(text.toLowerCase()));
  const total = models.reduce((sum, model) => sum + (model.size_bytes || 0), 0);
  const missing = models.filter((model) => model.present === false).length;
  return html`<div class="row wrap"><p class="dim">${t("models sum", { n: models.length, size: bytes(total) })}${missing > 0 && html` · <span class="wrong">${t("missing n", { n: missing })}</span>`}</p>
      ${models.length > 8 && html`<input type="search" aria-label=${t("search models")} placeholder=${t("search models")} value=${text} onInput=${(event) => setText(event.currentTarget.value)} />`}</div>
    <div class="scroll-x" tabindex="0" role="region" aria-label=${t("models")}><table class="table"><thead><tr><th scope="col">${t("name")}</th><th scope="col">${t("state")}</th><th scope="col">${t("size")}</th><th scope="col">${t("used by")}</th></tr></thead>
      <tbody>${shown.map((model) => html`<tr key=${model.path}><td title=${model.name}>${model.path}</td><td>${model.present === null ? html`<span class="dim">${t("on workers")}</span>` : html`<span class=${`mark ${model.present ? "mark-done" : "mark-bad"}`}>${model.present ? t("present") : t("missing")}</span>`}</td>
        <td class="num">${bytes(model.size_bytes)}</td><td class="dim">${model.used_by.join(", ")}</td></tr>`)}</tbody></table></div>`;
}

export function View() {
  const [system, setSystem] = useState(null);
  useEffect(() => {
    const load = () => { if (!document.hidden) get("system").then(setSystem, sayFailure); };
    load();
    const timer = setInterval(load, EVERY_MS);
    return () => clearInterval(timer);
  }, []);
  if (!system) return html`<div class="page" aria-busy="true"><h1>${t("system")}</h1></div>`;
  const { series, engine, release } = system;
  const chart = { begins: series.begins_at_s, step: series.step_s };
  const noModels = system.models.length === 0 && html`<${Folded} title=${t("models")} text=${t(release.digest ? "no models" : "models unknown")} />`;
  const hasGpu = series.gpu_used_bytes.some((value) => value !== null);
  return html`<div class="page system">
    <h1 class="visually-hidden">${t("system")}</h1>
    ${system.problems.map((problem) => html`<p key=${problem} class="failure"><${Icon} name="warn" /> ${t("paused")} <${English} text=${problem} /></p>`)}
    <section aria-label=${t("release")} class="card panel"><h2>${t("release")}</h2>${!release.digest && html`<p class="warnings small">${release.reason ? html`<${English} text=${release.reason} />` : t("unpinned why")}</p>`}<dl class="facts-list">
      <${Fact} label=${t("name")}><strong>${release.name}</strong><//>
      ${release.digest ? html`<${Fact} label=${t("digest")}><button type="button" class="text-button hash" title=${release.digest} onClick=${() => copyText(release.digest)}>${release.digest.slice(0, 19)}… <${Icon} name="copy" /></button><//>` : null}
      <${Fact} label=${t("engine")}>${engine.kind === "comfyui" ? "ComfyUI" : t(`engine ${engine.kind}`)}${engine.comfyui ? ` ${engine.comfyui}` : ""} <span class=${`mark ${engine.answers === false ? "mark-bad" : engine.ready ? "mark-done" : "mark-wait"}`}>${t(engine.answers === false ? "silent" : engine.ready ? "ready" : "starts")}</span><//>
      ${engine.address && html`<${Fact} label=${t("address")}><code>${engine.address}</code><//>`}
      <${Fact} label=${t("custom nodes")}><span class="num">${engine.custom_nodes ?? "–"}</span><//>
      <${Fact} label=${t("engine restarts")}><span class=${`num ${engine.restarts ? "wrong" : ""}`}>${engine.restarts}</span><//>
      <${Fact} label="comfypin"><span class="num">${system.comfypin}</span><//>
      <${Fact} label=${t("started")}>${ago(system.started_at)}<//>
      <${Fact} label=${t("webhooks owed")}><span class="num">${system.webhooks.owed ?? "–"}${system.webhooks.failed > 0 && html` · <span class="wrong">${t("given up", { n: system.webhooks.failed })}</span>`}</span><//>
    </dl></section>
    <section aria-label=${t("machine")} class="card panel"><h2>${t("machine")}</h2>
      ${system.gpus.map((gpu, place) => html`<${Meter} key=${place} label=${`${t("GPU memory")}${system.gpus.length > 1 ? ` ${place}` : ""}`} used=${gpu.used_bytes} total=${gpu.total_bytes} />`)}
      ${system.gpus.length === 0 && html`<p class="dim">${t("no GPU")}</p>`}
      ${system.disks.map((disk, place) => html`<${Meter} key=${place} label=${`${t("disk")}: ${disk.holds.map((one) => t(`holds ${one}`)).join(", ")}`} used=${disk.total_bytes - disk.free_bytes} total=${disk.total_bytes} />`)}
    </section>
    ${system.sync ? html`<section aria-label=${t("sync")} class="card panel"><h2>${t("sync")}</h2><${Sync} sync=${system.sync} /></section>` : html`<div class="folded-all"><${Folded} title=${t("sync")} text=${t("no sync")} />${noModels}</div>`}
    ${system.webhooks.failed > 0 && html`<${FailedWebhooks} count=${system.webhooks.failed} />`}
    <section aria-label=${t("last day")} class="charts-section"><h2>${t("last day")}</h2><div class="charts">
      <${Chart} ...${chart} title=${t("jobs ended")} values=${series.completed} over=${series.failed} show=${(total) => `${number(total)}${series.failed.some(Boolean) ? ` · ${t("failed n", { n: series.failed.reduce((a, b) => a + b, 0) })}` : ""}`} />
      <${Chart} ...${chart} title=${t("mean time")} values=${series.mean_s} show=${(_, newest) => seconds(newest)} />
      <${Chart} ...${chart} title=${t("waiting jobs")} values=${series.waiting} show=${(_, newest, most) => `${number(newest || 0)} · ${t("at most", { n: number(most < 1 ? 0 : most) })}`} />
      ${hasGpu && html`<${Chart} ...${chart} title=${t("GPU memory")} values=${series.gpu_used_bytes} show=${(_, newest) => bytes(newest)} />`}
    </div></section>
    ${system.models.length > 0 && html`<section aria-label=${t("models")} class="card panel models"><h2>${t("models")}</h2><${Models} models=${system.models} /></section>`}
    ${system.sync && noModels}
    <p class="dim small"><a href="docs">${t("api docs")}</a></p>
  </div>`;
}
