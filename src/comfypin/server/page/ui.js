// Small parts that all views share: icons, buttons, states, thumbnails, messages.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { address } from "./api.js";
import { language, setLanguage, t } from "./i18n.js";
import { told } from "./told.js";

const paths = {
  queue: "M4 6h16M4 12h16M4 18h10",
  gallery: "M4 4h7v9H4zM13 4h7v5h-7zM13 11h7v9h-7zM4 15h7v5H4z",
  run: "M7 4l13 8-13 8z",
  system: "M4 19V9M10 19V5M16 19v-7M21 19H3",
  close: "M6 6l12 12M18 6L6 18",
  retry: "M20 12a8 8 0 1 1-2.5-5.8M20 3v4h-4",
  stop: "M7 7h10v10H7z",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  dice: "M5 5h14v14H5zM9 9h.01M15 15h.01M12 12h.01M15 9h.01M9 15h.01",
  info: "M12 11v6M12 7.5h.01M3 12a9 9 0 1 0 18 0a9 9 0 1 0-18 0",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  compare: "M12 3v18M4 6h5v12H4zM15 6h5v12h-5z",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  audio: "M9 18V6l10-2v12M9 18a2.5 2.5 0 1 1-5 0a2.5 2.5 0 1 1 5 0M19 16a2.5 2.5 0 1 1-5 0a2.5 2.5 0 1 1 5 0",
  video: "M4 6h11v12H4zM15 10l5-3v10l-5-3z",
  cube: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  text: "M5 6h14M5 11h14M5 16h9",
  warn: "M12 4l9 16H3zM12 10v4M12 17h.01",
  out: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5L19 19M5 19l1.5-1.5M17.5 6.5L19 5",
  upload: "M12 20V9M7 13l5-5 5 5M5 4h14",
  plus: "M12 5v14M5 12h14",
  first: "M5 4h14M12 20V9M7 13l5-5 5 5",
  last: "M5 20h14M12 4v11M7 11l5 5 5-5",
  graph: "M4 5h6v5H4zM14 14h6v5h-6zM10 7.5h3a2 2 0 0 1 2 2V14",
  link: "M14 5h5v5M19 5l-8 8M16 14v5H5V8h5",
};

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${paths[name]} /></svg>`;

export const IconButton = ({ icon, label, onClick, className = "", ...rest }) =>
  html`<button type="button" class=${`icon-button ${className}`} aria-label=${label} title=${label} onClick=${onClick} ...${rest}><${Icon} name=${icon} /></button>`;

// Whoever cannot read the one finds the other by its own name.
export function LanguageButton({ onLanguage }) {
  const other = language === "en" ? "ru" : "en";
  return html`<button type="button" class="text-button" lang=${other} onClick=${() => { setLanguage(other); onLanguage(); }}
    aria-label=${other === "ru" ? "RU: русский" : "EN: English"}>${other.toUpperCase()}</button>`;
}

export const shortId = (id) => id.slice(0, 8);
export const jobTitle = (job) => job.workflow || t("from the API");

const tones = { IN_QUEUE: "wait", IN_PROGRESS: "run", COMPLETED: "done", FAILED: "bad", TIMED_OUT: "bad", CANCELLED: "off" };
export const StatusMark = ({ status }) => html`<span class=${`mark mark-${tones[status] || "off"}`}>${t(status)}</span>`;

export const Progress = ({ value, label }) =>
  html`<div class="bar" role="progressbar" aria-label=${label} aria-valuemin="0" aria-valuemax="100" aria-valuenow=${Math.round((value || 0) * 100)}>
    <div class="bar-fill" style=${{ transform: `scaleX(${value || 0})` }} />
  </div>`;

export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

export const thumbnail = (jobId, position) => address(`jobs/${encodeURIComponent(jobId)}/outputs/${position}/thumbnail`);

// A video's first picture, drawn by the browser: for servers without ffmpeg, and videos that it cannot read.
export const FirstFrame = ({ source, onBroken }) =>
  html`<video class="first-frame" src=${`${source}#t=0.1`} preload="metadata" muted playsinline tabindex="-1" aria-hidden="true" onError=${onBroken} />`;

// The first outputs of a job. What has no thumbnail leaves its place to the next.
export function Strip({ job, most = 4 }) {
  const count = Math.min(job.output_count || 0, most);
  return html`<span class="strip">
    ${Array.from({ length: count }, (_, position) => html`<img key=${position} class="strip-image" alt="" loading="lazy" decoding="async"
      src=${thumbnail(job.id, position)} onError=${(event) => { event.currentTarget.hidden = true; }} />`)}
    ${job.output_count > most && html`<span class="strip-more">+${job.output_count - most}</span>`}
  </span>`;
}

const messages = { shown: [], tell: () => {} };
export function say(text, tone = "info") {
  const message = { text, tone, key: Math.random() };
  messages.shown = [...messages.shown.slice(-2), message];
  messages.tell();
  setTimeout(() => { messages.shown = messages.shown.filter((one) => one !== message); messages.tell(); }, tone === "bad" ? 8000 : 3500);
}
export const sayFailure = (error) => { if (error.name !== "AbortError" && error.status !== 401) say(told(error), "bad"); };

export function Messages() {
  const [, again] = useState(0);
  const box = useRef(null);
  useEffect(() => { messages.tell = () => again((n) => n + 1); }, []);
  // A dialog lies above whatever z-index: only what opens after it lies above the dialog.
  useLayoutEffect(() => {
    if (!box.current.showPopover) return;
    if (box.current.matches(":popover-open")) box.current.hidePopover();
    if (messages.shown.length > 0) box.current.showPopover();
  }, [messages.shown]);
  return html`<div class="messages" role="status" aria-live="polite" popover="manual" ref=${box}>
    ${messages.shown.map((one) => html`<div key=${one.key} class=${`message message-${one.tone}`}>${one.text}</div>`)}
  </div>`;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS a page may not use the clipboard's own interface.
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(t("copied"));
}

// Runs while the view is shown; calls again every interval so that ages and elapsed times move on.
export function useTick(ms = 1000, isOn = true) {
  const [, again] = useState(0);
  useEffect(() => {
    if (!isOn) return undefined;
    const timer = setInterval(() => { if (!document.hidden) again((n) => n + 1); }, ms);
    return () => clearInterval(timer);
  }, [ms, isOn]);
}

export function useLoaded(load, keys) {
  const [loaded, set] = useState({ data: null, error: null });
  useEffect(() => {
    const stop = new AbortController();
    load(stop.signal).then((data) => set({ data, error: null }), (error) => { if (error.name !== "AbortError") set((old) => ({ ...old, error })); });
    return () => stop.abort();
  }, keys);
  return loaded;
}
