// What a user may do with a job, wherever it is shown.
import { address, get, post } from "./api.js";
import { t } from "./i18n.js";
import { say, sayFailure } from "./ui.js";

export async function cancelJob(job) {
  try { await post(`cancel/${job.id}`); } catch (error) { sayFailure(error); }
}

export async function retryJob(job) {
  try { await post(`retry/${job.id}`); say(t("queued again")); } catch (error) { sayFailure(error); }
}

// Before all that wait, or behind them.
export async function moveJob(job, waiting, isFirst) {
  const others = waiting.filter((one) => one.id !== job.id).map((one) => one.priority || 0);
  const priority = isFirst ? Math.max(0, ...others) + 1 : Math.min(0, ...others) - 1;
  try {
    await post(`jobs/${job.id}/priority`, { priority: Math.max(-1000, Math.min(1000, priority)) });
    say(t(isFirst ? "runs next" : "runs last"));
  } catch (error) { sayFailure(error); }
}

// What ComfyUI's own page opens when it is dropped there: the workflow, or a picture that has it in it.
export async function saveForComfy(jobId, output) {
  try {
    const graph = await get(`jobs/${encodeURIComponent(jobId)}/workflow`);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(graph, null, 2)], { type: "application/json" }));
    link.download = `workflow-${jobId.slice(0, 8)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    const holdsGraph = output && output.kind === "image" && /png|webp/.test(output.media_type || "");
    if (error.status !== 404 || !holdsGraph) { sayFailure(error); return; }
    location.assign(address(output.href, { download: 1 }));
  }
  say(t("drop on ComfyUI"));
}

// The same job with other seeds; returns the new one's id, or null.
export async function runAgain(jobId) {
  try {
    const { id } = await post(`jobs/${encodeURIComponent(jobId)}/again?seeds=new`);
    say(t("queued with another seed"));
    return id;
  } catch (error) { sayFailure(error); return null; }
}
