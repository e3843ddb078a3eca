// One output, as large as the window: arrows move, + and - zoom, C compares with another one.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";
import { runAgain, saveForComfy } from "./actions.js";
import { address, get } from "./api.js";
import { ago, bytes, clock, t } from "./i18n.js";
import { noteOf } from "./notes.js";
import { Icon, IconButton, copyText, sayFailure, shortId } from "./ui.js";

// What is in a bucket of a job's own comes through the server: the page's policy knows the server's bucket alone.
export const sourceOf = (output, isRelayed) => address(output.href, isRelayed || output.bucket === "other" ? { redirect: 0 } : {});
const MOST_GROWN = 3;
const isSvg = (output) => output.media_type === "image/svg+xml";

function Media({ output, zoom, offset, onPan }) {
  const [isRelayed, setRelayed] = useState(false);
  const [isBroken, setBroken] = useState(false);
  const resumeAt = useRef(0);
  const drag = useRef(null);
  const source = sourceOf(output, isRelayed);
  // A signed address may expire while a video is watched: the server has a fresh way to it.
  function lose(event) {
    resumeAt.current = event.currentTarget.currentTime || 0;
    if (output.bucket === "own" && !isRelayed) setRelayed(true); else setBroken(true);
  }
  const resume = (event) => { if (resumeAt.current) event.currentTarget.currentTime = resumeAt.current; resumeAt.current = 0; };
  if (output.kind === "video" && !isBroken) return html`<video class="light-media" style=${sizeOf(output)} src=${source} poster=${output.thumbnail ? address(output.thumbnail) : undefined} preload="metadata" controls autoplay loop muted playsinline onError=${lose} onLoadedMetadata=${resume} />`;
  if (output.kind === "audio" && !isBroken) return html`<div class="light-card"><${Icon} name="audio" /><p>${output.filename}</p><audio src=${source} controls onError=${lose} onLoadedMetadata=${resume} /></div>`;
  if (output.kind === "image" && !isSvg(output) && !isBroken) {
    return html`<img class=${`light-media ${zoom > 1 ? "is-zoomed" : ""}`} src=${source} alt=${output.filename} draggable=${false}
      style=${{ ...sizeOf(output), transform: `translate(${offset.x}px, ${offset.y}px) scale(${zoom})` }} onError=${lose}
      onPointerDown=${(event) => { if (zoom > 1) { drag.current = { x: event.clientX - offset.x, y: event.clientY - offset.y }; event.currentTarget.setPointerCapture(event.pointerId); } }}
      onPointerMove=${(event) => { if (drag.current) onPan({ x: event.clientX - drag.current.x, y: event.clientY - drag.current.y }); }}
      onPointerUp=${() => { drag.current = null; }} />`;
  }
  return html`<div class="light-card"><${Icon} name=${output.kind === "3d" ? "cube" : "file"} /><p>${output.filename}</p><p class="dim">${bytes(output.size_bytes)}</p>
    <a class="primary" href=${address(output.href, { download: 1 })} download=${output.filename}><${Icon} name="download" /> ${t("download")}</a></div>`;
}

// On a wide screen with its word beside it.
const Tool = ({ icon, label, href, ...rest }) => (href
  ? html`<a class="tool" href=${href} aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /><span class="tool-word">${label}</span></a>`
  : html`<button type="button" class="tool" aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} /><span class="tool-word">${label}</span></button>`);

// What tells a picture from its neighbours: what was set for it, else its job.
const captionOf = (output) => noteOf(output.job_id) || html`<code>${shortId(output.job_id)}</code>`;

// As large as the window, but a small picture grows to three times its size only.
const sizeOf = ({ width, height }) => (width && height ? { width: "100%", height: "100%", maxWidth: `min(100%, ${width * MOST_GROWN}px)`, maxHeight: `min(100%, ${height * MOST_GROWN}px)` } : {});

export function Lightbox({ outputs, index, onMove, onClose }) {
  const dialog = useRef(null);
  const output = outputs[index];
  const [zoom, setZoom] = useState(1);
  const [offset, setOffset] = useState({ x: 0, y: 0 });
  const [pinned, setPinned] = useState(null); // compared with
  const finger = useRef(null); // where it touched
  useEffect(() => { dialog.current.showModal(); dialog.current.focus(); return () => dialog.current && dialog.current.close(); }, []);
  useLayoutEffect(() => { setZoom(1); setOffset({ x: 0, y: 0 }); }, [index]);
  // The next one is ready before it is asked for.
  useEffect(() => {
    for (const near of [outputs[index + 1], outputs[index - 1]]) if (near && near.kind === "image" && !isSvg(near)) new Image().src = sourceOf(near);
  }, [index]);
  if (!output) return null;
  const zoomBy = (factor) => setZoom((old) => { const now = Math.min(12, Math.max(1, old * factor)); if (now === 1) setOffset({ x: 0, y: 0 }); return now; });
  const move = (by) => { if (outputs[index + by]) onMove(index + by); };
  // With its neighbour at first: beside itself it says nothing.
  function compare() {
    if (outputs.length < 2) return;
    setPinned(pinned ? null : output);
    if (!pinned) move(index + 1 < outputs.length ? 1 : -1);
  }
  async function share() {
    try {
      const { url, uri } = await get(`${output.href}/address`);
      await copyText(url || uri || address(output.href));
    } catch (error) { sayFailure(error); }
  }
  const keys = {
    ArrowRight: () => move(1), ArrowLeft: () => move(-1), "+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomBy(0),
    c: compare, с: compare, d: () => { location.assign(address(output.href, { download: 1 })); },
  };
  function press(event) {
    if (event.target.closest("video,audio") || event.ctrlKey || event.metaKey) return;
    const act = keys[event.key] || keys[event.key.toLowerCase()];
    if (act) { event.preventDefault(); event.stopPropagation(); act(); }
  }
  function wheel(event) { event.preventDefault(); zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2); }
  // A finger that wipes to the side moves on, unless it drags a picture that is zoomed.
  function touch(event) { finger.current = event.pointerType === "touch" && zoom === 1 ? event.clientX : null; }
  function lift(event) {
    const by = finger.current === null ? 0 : event.clientX - finger.current;
    finger.current = null;
    if (Math.abs(by) > 60) move(by < 0 ? 1 : -1);
  }
  async function again() { if (await runAgain(output.job_id)) { onClose(); location.hash = "#/queue"; } }
  return html`<dialog class="light" ref=${dialog} tabindex="-1" aria-label=${output.filename} onKeyDown=${press} onCancel=${(event) => { event.preventDefault(); onClose(); }}>
    <header class="light-top">
      <p class="light-name ellipsis"><strong>${output.filename}</strong>
        ${noteOf(output.job_id) && html`<span class="dim" title=${noteOf(output.job_id)}>${noteOf(output.job_id)}</span>`}
        <span class="dim">${output.width ? ` ${output.width}×${output.height} ·` : ""} ${bytes(output.size_bytes)} · <time title=${clock(output.made_at)}>${ago(output.made_at)}</time> · ${index + 1}/${outputs.length}</span></p>
      <div class="light-tools">
        <${Tool} icon="info" label=${t("details")} href=${`#/job/${output.job_id}`} onClick=${() => dialog.current.close()} />
        <${Tool} icon="dice" label=${t("another seed")} onClick=${again} />
        <${Tool} icon="run" label=${t("change and run")} href=${`#/run?from=${output.job_id}`} onClick=${() => dialog.current.close()} />
        <${Tool} icon="graph" label=${t("for ComfyUI")} onClick=${() => saveForComfy(output.job_id, output)} />
        ${outputs.length > 1 && html`<${Tool} icon="compare" label=${t("compare")} aria-pressed=${pinned ? "true" : "false"} onClick=${compare} />`}
        <${Tool} icon="copy" label=${t("copy address")} onClick=${share} />
        <${Tool} icon="download" label=${t("download")} href=${address(output.href, { download: 1 })} download=${output.filename} />
        <${IconButton} icon="close" label=${t("close")} onClick=${onClose} />
      </div>
    </header>
    <div class=${`light-stage ${pinned ? "is-split" : ""}`} onWheel=${wheel} onPointerDown=${touch} onPointerUp=${lift} onDblClick=${() => (zoom > 1 ? zoomBy(0) : zoomBy(2.5))}>
      ${pinned && html`<figure class="light-half"><${Media} key=${pinned.href} output=${pinned} zoom=${zoom} offset=${offset} onPan=${setOffset} /><figcaption>${pinned.filename} ${captionOf(pinned)}</figcaption></figure>`}
      <figure class="light-half"><${Media} key=${output.href} output=${output} zoom=${zoom} offset=${offset} onPan=${setOffset} />${pinned && html`<figcaption>${output.filename} ${captionOf(output)}</figcaption>`}</figure>
      <${IconButton} icon="left" className="light-left" label=${t("newer")} disabled=${index === 0} onClick=${() => move(-1)} />
      <${IconButton} icon="right" className="light-right" label=${t("older")} disabled=${index >= outputs.length - 1} onClick=${() => move(1)} />
    </div>
    <p class="light-help dim small">${t("light help")}</p>
  </dialog>`;
}
