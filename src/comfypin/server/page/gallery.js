// The gallery: all outputs, newest first, in rows that keep each picture's shape. Only rows near the window exist.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { address, get } from "./api.js";
import { bytes, t } from "./i18n.js";
import { Lightbox, sourceOf } from "./lightbox.js";
import { noteOf } from "./notes.js";
import { useStore } from "./store.js";
import { Empty, FirstFrame, Icon, sayFailure } from "./ui.js";

const PAGE = 100;
const GAP = 6;
// Tiles grow with all else on wide screens; the sheet has 10 pixels a rem.
const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 10;
const MARGIN = 900; // pixels of rows kept above and below the window
const kindIcon = { image: "gallery", video: "video", audio: "audio", "3d": "cube", text: "text" };
export const keyOf = (output) => `${output.job_id}/${output.position}`;

// Only what the page shows is kept of each output, so that ten thousand of them are a few megabytes.
const slim = ({ job_id, position, filename, kind, media_type, width, height, size_bytes, workflow, release, status, made_at, sha256, href, url, uri, bucket, thumbnail }) =>
  ({ job_id, position, filename, kind, media_type, width, height, size_bytes, workflow, release, status, made_at, sha256, href, url, uri, bucket, thumbnail });

function shapeOf(output) {
  if (!output.thumbnail && output.kind !== "video") return 1;
  const ratio = output.width && output.height ? output.width / output.height : output.kind === "video" ? 16 / 9 : 1;
  return Math.min(3, Math.max(0.45, ratio));
}

// Rows of about `target` pixels that fill the width; the last one keeps its height.
export function layOut(outputs, width, target) {
  const rows = [];
  let row = [], ratio = 0, top = 0;
  const close = (height) => {
    rows.push({ top, height, tiles: row });
    top += height + GAP;
    row = []; ratio = 0;
  };
  outputs.forEach((output, index) => {
    const shape = shapeOf(output);
    row.push({ output, index, shape });
    ratio += shape;
    const height = (width - GAP * (row.length - 1)) / ratio;
    if (height <= target) close(height);
  });
  if (row.length) close(target);
  return { rows, height: Math.max(0, top - GAP) };
}

function firstRowBelow(rows, y) {
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].top + rows[middle].height < y) low = middle + 1; else high = middle;
  }
  return low;
}

function Tile({ tile, height, onOpen, isFocused, onFocus }) {
  const { output, index, shape } = tile;
  const [isBroken, setBroken] = useState(false);
  const [isUnseen, setUnseen] = useState(false); // nor could the browser draw it
  const element = useRef(null);
  useLayoutEffect(() => { if (isFocused && document.activeElement !== element.current) element.current.focus({ preventScroll: false }); }, [isFocused]);
  const picture = useRef(null);
  // A picture that scrolled past before it came is not waited for: it would keep its place in the browser's memory.
  useLayoutEffect(() => () => { if (picture.current) picture.current.removeAttribute("src"); }, []);
  const isPicture = output.thumbnail && !isBroken;
  const isVideo = output.kind === "video" && (isPicture || !isUnseen);
  return html`<button type="button" ref=${element} class="shot" style=${{ width: `${height * shape}px`, height: `${height}px` }}
    aria-label=${`${output.filename}, ${output.workflow || t("from the API")}`} title=${noteOf(output.job_id) || undefined} onClick=${() => onOpen(index)} onFocus=${() => onFocus(index)}>
    ${isPicture
      ? html`<img ref=${picture} src=${address(output.thumbnail)} alt="" decoding="async" draggable=${false} onError=${() => setBroken(true)} />`
      : isVideo ? html`<${FirstFrame} source=${sourceOf(output)} onBroken=${() => setUnseen(true)} />`
      : html`<span class="tile-card"><${Icon} name=${kindIcon[output.kind] || "file"} /><span class="ellipsis">${output.filename}</span><span class="dim small">${bytes(output.size_bytes)}</span></span>`}
    ${isVideo && html`<span class="shot-kind"><${Icon} name="video" /></span>`}
  </button>`;
}

function useOutputs(filter) {
  const [state, setState] = useState({ outputs: [], next: null, names: {}, isLoading: true, key: "" });
  const key = JSON.stringify(filter);
  const busy = useRef(null);
  const fetchPage = (after) => get("outputs", { ...filter, after, limit: PAGE }, { signal: busy.current.signal });
  useEffect(() => {
    busy.current = new AbortController();
    setState((old) => ({ ...old, isLoading: true }));
    fetchPage().then(
      (answer) => setState({ outputs: answer.outputs.map(slim), next: answer.next, names: answer.names, isLoading: false, key }),
      (error) => { if (error.name !== "AbortError") { sayFailure(error); setState((old) => ({ ...old, isLoading: false })); } },
    );
    return () => busy.current.abort();
  }, [key]);
  const more = () => {
    if (state.isLoading || !state.next) return;
    setState((old) => ({ ...old, isLoading: true }));
    fetchPage(state.next).then(
      (answer) => setState((old) => ({ ...old, outputs: [...old.outputs, ...answer.outputs.map(slim)], next: answer.next, isLoading: false })),
      (error) => { if (error.name !== "AbortError") { sayFailure(error); setState((old) => ({ ...old, isLoading: false })); } },
    );
  };
  // What jobs left meanwhile goes in front; what is shown stays.
  const changes = useStore((s) => s.outputsChanged);
  const seen = useRef(changes);
  useEffect(() => {
    if (seen.current === changes) return undefined;
    const timer = setTimeout(() => {
      seen.current = changes;
      fetchPage().then((answer) => setState((old) => {
        const known = new Set(old.outputs.map(keyOf));
        const fresh = answer.outputs.filter((output) => !known.has(keyOf(output))).map(slim);
        return fresh.length ? { ...old, outputs: [...fresh, ...old.outputs], names: answer.names, next: old.outputs.length ? old.next : answer.next } : old;
      }), () => {});
    }, 300);
    return () => clearTimeout(timer);
  }, [changes, key]);
  return { ...state, more };
}

// Days are those of whoever looks: each begins at their midnight.
function timesOf({ when, day, ...rest }) {
  const midnight = when === "day" ? new Date(`${day}T00:00`) : new Date();
  if (!when || Number.isNaN(midnight.getTime())) return rest;
  midnight.setHours(0, 0, 0, 0);
  const moved = (days) => { const moment = new Date(midnight); moment.setDate(moment.getDate() + days); return moment.toISOString(); };
  return when === "day" ? { ...rest, since: moved(0), until: moved(1) } : { ...rest, since: moved(1 - Number(when)) };
}

const UNFILTERED = { text: "", workflow: "", release: "", state: "", kind: "", when: "", day: "" };

function Filters({ filter, names, onChange, size, onSize }) {
  const pick = (name, label, options, show = (value) => value) => options && options.length > 0 && html`
    <select aria-label=${label} value=${filter[name] || ""} onChange=${(event) => onChange({ ...filter, [name]: event.currentTarget.value })}>
      <option value="">${label}</option>${options.map((value) => html`<option key=${value} value=${value}>${show(value)}</option>`)}</select>`;
  return html`<div class="filters gallery-filters">
    <input type="search" aria-label=${t("search outputs")} placeholder=${t("search outputs")} value=${filter.text || ""}
      onInput=${(event) => onChange({ ...filter, text: event.currentTarget.value })} />
    ${pick("workflow", t("all workflows"), names.workflows)}
    ${names.releases && names.releases.length > 1 && pick("release", t("all releases"), names.releases)}
    ${names.states && names.states.length > 1 && pick("state", t("all states"), names.states, t)}
    ${names.kinds && names.kinds.length > 1 && pick("kind", t("all kinds"), names.kinds, (kind) => t(`kind ${kind}`))}
    <select aria-label=${t("made when")} value=${filter.when || ""} onChange=${(event) => onChange({ ...filter, when: event.currentTarget.value })}>
      <option value="">${t("any day")}</option>${["1", "7", "30", "day"].map((days) => html`<option key=${days} value=${days}>${t(`days ${days}`)}</option>`)}</select>
    ${filter.when === "day" && html`<input type="date" aria-label=${t("days day")} value=${filter.day || ""} onInput=${(event) => onChange({ ...filter, day: event.currentTarget.value })} />`}
    <label class="size">${t("size")}<input type="range" min="110" max="420" step="10" value=${size} onInput=${(event) => onSize(Number(event.currentTarget.value))} /></label>
  </div>`;
}

export function View({ route }) {
  const [typed, setTyped] = useState({ ...UNFILTERED, workflow: route.query.get("workflow") || "" });
  const [filter, setFilter] = useState(() => timesOf(typed));
  const [size, setSize] = useState(innerWidth < 700 ? 150 : 220);
  const [width, setWidth] = useState(0);
  const [view, setView] = useState({ top: 0, bottom: innerHeight });
  const [open, setOpen] = useState(null); // the index in the list, or an output that a link named
  const [focused, setFocused] = useState(null);
  const frame = useRef(null);
  const { outputs, next, names, isLoading, more } = useOutputs(filter);

  useEffect(() => {
    const timer = setTimeout(() => setFilter(timesOf(typed)), 200);
    return () => clearTimeout(timer);
  }, [typed]);
  useEffect(() => {
    const measure = () => { if (frame.current) setWidth(frame.current.clientWidth); };
    const look = () => {
      const top = frame.current ? frame.current.getBoundingClientRect().top : 0;
      // Steps, so that a small scroll renders nothing.
      const step = (y) => Math.round(y / 200) * 200;
      setView((old) => { const now = { top: step(-top), bottom: step(innerHeight - top) }; return now.top === old.top && now.bottom === old.bottom ? old : now; });
    };
    const watch = new ResizeObserver(() => { measure(); look(); });
    watch.observe(frame.current);
    measure(); look();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => { watch.disconnect(); removeEventListener("scroll", look); removeEventListener("resize", look); };
  }, []);

  const { rows, height } = useMemo(() => (width ? layOut(outputs, width, Math.min(size * rem(), width)) : { rows: [], height: 0 }), [outputs, width, size]);
  const first = firstRowBelow(rows, view.top - MARGIN);
  const shown = [];
  for (let place = first; place < rows.length && rows[place].top < view.bottom + MARGIN; place += 1) shown.push(rows[place]);
  useEffect(() => { if (next && height && view.bottom + 2 * MARGIN > height) more(); }, [view, height, next, isLoading]);

  // A link from a job names the output to show.
  const named = route.query.get("show");
  useEffect(() => {
    if (!named) return;
    const place = outputs.findIndex((output) => keyOf(output) === named);
    if (place >= 0) { setOpen({ index: place }); return; }
    const [job, position] = named.split("/");
    get("outputs", { job, limit: 200 }).then((answer) => {
      const list = answer.outputs.map(slim).sort((one, other) => one.position - other.position);
      const found = list.findIndex((output) => output.position === Number(position));
      if (found >= 0) setOpen({ index: found, list });
    }, sayFailure);
  }, [named, outputs.length > 0]);

  const isFiltered = Boolean(filter.text || filter.workflow || filter.release || filter.state || filter.kind || filter.since);
  function close() {
    if (open && !open.list) setFocused(open.index);
    setOpen(null);
    if (named) history.back();
  }

  function press(event) {
    if (focused === null || open) return;
    const place = rows.findIndex((row) => row.tiles.some((tile) => tile.index === focused));
    const moves = { ArrowRight: 1, ArrowLeft: -1 };
    let target = null;
    if (event.key in moves) target = focused + moves[event.key];
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      const row = rows[place + (event.key === "ArrowDown" ? 1 : -1)];
      const column = focused - rows[place].tiles[0].index;
      if (row) target = row.tiles[Math.min(column, row.tiles.length - 1)].index;
    } else return;
    event.preventDefault();
    if (target !== null && target >= 0 && target < outputs.length) setFocused(target);
  }

  return html`<div class="page gallery">
    <h1 class="visually-hidden">${t("gallery")}</h1>
    <${Filters} filter=${typed} names=${names || {}} onChange=${setTyped} size=${size} onSize=${setSize} />
    <div class="wall" ref=${frame} onKeyDown=${press} style=${{ height: `${height}px` }} role="list" aria-label=${t("outputs")}>
      ${shown.map((row) => html`<div key=${keyOf(row.tiles[0].output)} class="wall-row" style=${{ transform: `translateY(${row.top}px)` }} role="presentation">
        ${row.tiles.map((tile) => html`<div key=${keyOf(tile.output)} role="listitem"><${Tile} tile=${tile} height=${row.height} onOpen=${(index) => setOpen({ index })} isFocused=${tile.index === focused} onFocus=${setFocused} /></div>`)}
      </div>`)}
    </div>
    ${!isLoading && outputs.length === 0 && html`<${Empty} title=${isFiltered ? t("nothing found") : t("no outputs yet")}><p>${isFiltered
      ? html`<button type="button" onClick=${() => setTyped(UNFILTERED)}>${t("show all")}</button>`
      : html`<a class="primary" href="#/run"><${Icon} name="run" /> ${t("run a workflow")}</a>`}</p><//>`}
    ${open && html`<${Lightbox} outputs=${open.list || outputs} index=${open.index} onMove=${(index) => { setOpen({ ...open, index }); if (!open.list && next && index > outputs.length - 10) more(); }} onClose=${close} />`}
  </div>`;
}
