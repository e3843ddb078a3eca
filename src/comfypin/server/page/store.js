// What the page knows, and the one event stream that tells it. Views read it with useStore.
import { useEffect, useState } from "./vendor/htm-preact.js";
import { address, get } from "./api.js";

const KEPT_ENDED = 400;
const HIDDEN_FOR_MS = 60_000;

export const store = {
  session: null, // {signed_in, token_needed, version}
  live: "connecting", // or "open", "lost"
  jobs: new Map(),
  previews: new Map(), // job id -> address of the newest preview
  queue: { waiting: 0, running: 0, paused: null },
  outputsChanged: 0, // counts jobs that ended with outputs
};

const listeners = new Set();
let isScheduled = false;

export function changed() {
  if (isScheduled) return;
  isScheduled = true;
  const tell = () => { isScheduled = false; for (const listener of [...listeners]) listener(); };
  if (document.hidden) setTimeout(tell, 500); else requestAnimationFrame(tell);
}

export function useStore(select) {
  const [, again] = useState(0);
  useEffect(() => {
    let seen = select(store);
    const listener = () => {
      const now = select(store);
      if (now !== seen || (typeof now === "object" && now !== null)) { seen = now; again((n) => n + 1); }
    };
    listeners.add(listener);
    return () => listeners.delete(listener);
  }, []);
  return select(store);
}

export const isPending = (job) => job.status === "IN_QUEUE" || job.status === "IN_PROGRESS";
export const canRetry = (job) => job.status === "FAILED" || job.status === "TIMED_OUT";

// Until when an estimate holds: the server gives seconds from the moment of the event.
const received = (job) => (job.estimate_s == null ? job : { ...job, ends_at: Date.now() + job.estimate_s * 1000 });
export const secondsLeft = (job) => (job.ends_at ? Math.max(0, (job.ends_at - Date.now()) / 1000) : null);

export function noteJob(told) {
  const job = received(told);
  const before = store.jobs.get(job.id);
  store.jobs.set(job.id, job);
  if (!isPending(job)) {
    store.previews.delete(job.id);
    if (job.output_count && (!before || isPending(before))) store.outputsChanged += 1;
  }
  if (store.jobs.size > KEPT_ENDED + 1000) forgetOldest();
  changed();
}

function forgetOldest() {
  const ended = [...store.jobs.values()].filter((job) => !isPending(job)).sort(byNewest);
  for (const job of ended.slice(KEPT_ENDED)) store.jobs.delete(job.id);
}

export const byNewest = (one, other) => (one.created_at < other.created_at ? 1 : one.created_at > other.created_at ? -1 : 0);

const handlers = {
  snapshot(data) {
    const known = new Set(data.jobs.map((job) => job.id));
    for (const [id, job] of store.jobs) if (isPending(job) && !known.has(id)) store.jobs.delete(id);
    const isFirst = store.jobs.size === 0;
    for (const job of data.jobs) store.jobs.set(job.id, received(job));
    if (!isFirst) store.outputsChanged += 1;
    store.queue = data.queue;
  },
  job: noteJob,
  progress({ id, progress }) {
    const job = store.jobs.get(id);
    if (job) store.jobs.set(id, { ...job, progress });
  },
  preview({ id, content_type, data }) {
    store.previews.set(id, `data:${content_type};base64,${data}`);
  },
  output() { store.outputsChanged += 1; }, // of a fleet's job, a moment after its end
  removed({ id }) { store.jobs.delete(id); },
  queue(data) { store.queue = data; },
};

let source = null;
let lastId = "";
let failures = 0;
let timer = 0;

export function follow() {
  stop();
  source = new EventSource(address("events", lastId ? { after: lastId } : {}));
  source.onopen = () => { failures = 0; store.live = "open"; changed(); };
  for (const [name, handle] of Object.entries(handlers)) {
    source.addEventListener(name, (event) => {
      if (event.lastEventId) lastId = event.lastEventId;
      handle(JSON.parse(event.data));
      changed();
    });
  }
  source.onerror = () => {
    store.live = "lost";
    changed();
    // The browser comes back by itself, unless the server answered with an error.
    if (source.readyState === EventSource.CLOSED) {
      failures += 1;
      timer = setTimeout(comeBack, Math.min(15_000, 500 * 2 ** failures));
    }
  };
}

async function comeBack() {
  try {
    store.session = await get("session");
  } catch { /* the server is still away */ }
  if (store.session && store.session.token_needed && !store.session.signed_in) changed();
  else follow();
}

export function stop() {
  clearTimeout(timer);
  if (source) source.close();
  source = null;
}

// A tab that nobody sees needs no previews: the server makes none if nobody follows.
let hiddenTimer = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(() => { if (source) { stop(); store.live = "asleep"; } }, HIDDEN_FOR_MS);
  else if (store.live === "asleep") follow();
});
