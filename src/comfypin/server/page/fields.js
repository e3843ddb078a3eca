// One input of a workflow as a control that fits it.
import { html, useRef, useState } from "./vendor/htm-preact.js";
import { t } from "./i18n.js";
import { Icon, IconButton, say } from "./ui.js";

const MOST_OPTIONS = 300;
const MOST_FILE_BYTES = 40e6; // base64 makes a third more of it, and a request may have 64 MB
export const startValue = (input) => input.default ?? (input.kind === "flag" ? false : "");
export const newSeed = (input) => Math.floor(Math.random() * Math.min(2 ** 48, (input.maximum ?? 2 ** 48) + 1));

export const isWhole = (input) => input.type === "INT";
// Nodes of ComfyUI take colours as whole numbers: 0xRRGGBB.
export const isColor = (input) => isWhole(input) && input.maximum === 0xffffff && /colou?r/i.test(input.target.slice(input.target.lastIndexOf(".") + 1));
export const asHex = (value) => `#${Math.min(0xffffff, Math.max(0, Number(value) || 0)).toString(16).padStart(6, "0")}`;
// "EmptyImage" is a class; people read "Empty Image". A title that somebody wrote stays.
const spaced = (name) => (/^[A-Z][A-Za-z0-9]+$/.test(name) ? name.replace(/([a-z0-9])([A-Z])/g, "$1 $2").replace(/([A-Z]+)([A-Z][a-z])/g, "$1 $2").replace(/^K Sampler/, "KSampler") : name);

// "KSampler.cfg" is for machines; people read "cfg" below the node's name. A name without a node stands for itself.
export function nodeLabel(input) {
  const at = input.name.lastIndexOf(".");
  return at > 0 && input.name.slice(at + 1) === input.target.slice(input.target.lastIndexOf(".") + 1) ? input.name.slice(0, at) : "";
}

// Nodes that share a name are told apart by their ids, which then stand before the inputs' names.
function nodeName(input) {
  const place = nodeLabel(input);
  if (/^[\d:]+$/.test(place)) return input.title ? `${input.title} #${place}` : `#${place}`;
  return place && (input.title || spaced(place));
}

// Its label, and its node's name unless a group already says that.
export function labelOf(input, isGrouped) {
  if (input.role && (!input.title || /^CLIP Text Encode/.test(input.title))) return [t(`role ${input.role}`), ""];
  const place = nodeLabel(input);
  const own = place ? input.name.slice(place.length + 1).replace(/_/g, " ") : input.title || input.name;
  return [own, isGrouped ? "" : nodeName(input)];
}

// The inputs of one node stand together, in the order of the list.
export function groupsOf(inputs) {
  const groups = [];
  for (const input of inputs) {
    const place = nodeLabel(input);
    const group = place && groups.find((one) => one.key === place);
    if (group) group.inputs.push(input); else groups.push({ key: place || input.name, place: nodeName(input), inputs: [input] });
  }
  return groups;
}

function readFile(file, onChange) {
  if (file.size > MOST_FILE_BYTES) { say(t("file too large"), "bad"); return; }
  const reader = new FileReader();
  reader.onload = () => onChange(reader.result);
  reader.readAsDataURL(file);
}

function FileField({ id, value, onChange, label }) {
  const picker = useRef(null);
  const [name, setName] = useState("");
  const isData = typeof value === "string" && value.startsWith("data:");
  const take = (file) => { if (file) { setName(file.name); readFile(file, onChange); } };
  return html`<div class="drop-field" tabindex="0" role="group" aria-label=${label}
    onDragOver=${(event) => event.preventDefault()}
    onDrop=${(event) => { event.preventDefault(); event.stopPropagation(); take(event.dataTransfer.files[0]); }}
    onPaste=${(event) => { if (event.clipboardData.files[0]) { event.preventDefault(); take(event.clipboardData.files[0]); } }}>
    ${isData && value.startsWith("data:image/") && !value.startsWith("data:image/svg") ? html`<img src=${value} alt="" />` : html`<${Icon} name="file" />`}
    <span class="ellipsis">${isData ? name || t("own file") : value || t("drop file")}</span>
    <button type="button" onClick=${() => picker.current.click()}>${t("choose file")}</button>
    <input id=${id} ref=${picker} type="file" hidden onChange=${(event) => take(event.currentTarget.files[0])} />
  </div>`;
}

function Control({ id, input, value, onChange, describedBy, label }) {
  const shared = { id, "aria-describedby": describedBy };
  if (input.kind === "prompt") return html`<textarea ...${shared} rows=${Math.min(8, Math.max(2, String(value).split("\n").length, Math.ceil(String(value).length / 60)))} maxlength=${input.max_length} value=${value} onInput=${(event) => onChange(event.currentTarget.value)} />`;
  if (input.kind === "flag") return html`<input ...${shared} type="checkbox" checked=${Boolean(value)} onChange=${(event) => onChange(event.currentTarget.checked)} />`;
  if (input.kind === "file") return html`<${FileField} id=${id} value=${value} onChange=${onChange} label=${label} />`;
  if (input.choices && input.choices.length > 0) {
    if (input.choices.length > MOST_OPTIONS) {
      return html`<input ...${shared} list=${`${id}-choices`} value=${value} onInput=${(event) => onChange(event.currentTarget.value)} />
        <datalist id=${`${id}-choices`}>${input.choices.map((choice) => html`<option key=${choice} value=${choice} />`)}</datalist>`;
    }
    const known = input.choices.includes(value) ? input.choices : [value, ...input.choices];
    return html`<select ...${shared} value=${String(known.indexOf(value))} onChange=${(event) => onChange(known[Number(event.currentTarget.value)])}>
      ${known.map((choice, place) => html`<option key=${place} value=${String(place)}>${String(choice)}</option>`)}</select>`;
  }
  if (["seed", "size", "number"].includes(input.kind)) {
    if (isColor(input)) return html`<input ...${shared} type="color" value=${asHex(value)} onInput=${(event) => onChange(parseInt(event.currentTarget.value.slice(1), 16))} />`;
    return html`<input ...${shared} type="number" inputmode=${isWhole(input) ? "numeric" : "decimal"} step=${isWhole(input) ? 1 : "any"} min=${input.minimum} max=${input.maximum} required value=${value}
      onInput=${(event) => { const told = event.currentTarget.valueAsNumber; if (!Number.isNaN(told)) onChange(told); }} />`;
  }
  return html`<input ...${shared} type="text" maxlength=${input.max_length} value=${value} onInput=${(event) => onChange(event.currentTarget.value)} />`;
}

export function Field({ input, value, onChange, rolls, onRolls, isGrouped }) {
  const id = `field-${input.name.replace(/[^\w-]/g, "_")}`;
  const [label, place] = labelOf(input, isGrouped);
  const hintId = input.description ? `${id}-hint` : undefined;
  // A seed that was typed is the one that is meant.
  const type = (told) => { if (rolls) onRolls(false); onChange(told); };
  return html`<div class=${`field field-${input.kind}`}>
    <label class="field-name" for=${id} title=${input.description}>${label}${place && html`<span class="dim small"> ${place}</span>`}</label>
    <div class="field-row"><${Control} id=${id} input=${input} value=${value} onChange=${type} describedBy=${hintId} label=${label} />
      ${input.kind === "seed" && html`<${IconButton} icon="dice" className=${rolls ? "is-on" : ""} label=${t("random seed")} aria-pressed=${rolls ? "true" : "false"} onClick=${() => { if (!rolls) onChange(newSeed(input)); onRolls(!rolls); }} />`}</div>
    ${input.description && html`<p id=${hintId} class=${place || isGrouped ? "visually-hidden" : "dim small"}>${input.description}</p>`}
  </div>`;
}
