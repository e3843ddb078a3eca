// What a user may do with a job, wherever it is shown.
import { get, post } from "./api.js";
import { t } from "./i18n.js";
import { say, sayFailure } from "./ui.js";

export async function cancelJob(job) {
  try { await post(`cancel/${job.id}`); } catch (error) { sayFailure(error); }
}

export async function retryJob(job) {
  try { await post(`retry/${job.id}`); say(t("queued again")); } catch (error) { sayFailure(error); }
}

// The same job with other seeds. What the server does not keep (secrets, large files) it cannot send again.
export async function runAgain(jobId) {
  try {
    const job = await get(`jobs/${jobId}`);
    const input = job.input;
    if (!input || typeof input !== "object" || !(input.workflow || input.workflow_name)) { say(t("input not kept"), "bad"); return null; }
    const taken = await post("run", { input: { ...input, randomize_seeds: true, set: withoutSeeds(input.set) } });
    say(t("queued with another seed"));
    return taken.id;
  } catch (error) { sayFailure(error); return null; }
}

// A seed that is set by hand would win over a random one.
function withoutSeeds(set) {
  return Object.fromEntries(Object.entries(set || {}).map(([target, value]) => [target, /seed/i.test(target) && typeof value === "number" ? "random" : value]));
}
