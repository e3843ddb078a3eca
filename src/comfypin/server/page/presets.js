// Presets of a form: its values, its table and how often, under a name, in this browser.
import { html, useState } from "./vendor/htm-preact.js";
import { read, t, write } from "./i18n.js";
import { Icon, say } from "./ui.js";

export function Presets({ workflow, current, onPick }) {
  const key = `presets.${workflow}`;
  const [presets, setPresets] = useState(() => read(key, {}));
  const [name, setName] = useState("");
  const keep = (changed) => { setPresets(changed); write(key, changed); };
  const names = Object.keys(presets).sort();
  function save() {
    const named = name.trim();
    if (!named) return;
    keep({ ...presets, [named]: current() });
    say(t("preset saved", { name: named }));
  }
  function drop() {
    const { [name.trim()]: _, ...rest } = presets;
    keep(rest);
    setName("");
  }
  return html`<div class="field"><span class="field-name">${t("presets")}</span>
    <div class="field-row">
      ${names.length > 0 && html`<select aria-label=${t("presets")} value=${name in presets ? name : ""} onChange=${(event) => { const chosen = event.currentTarget.value; setName(chosen); if (presets[chosen]) onPick(presets[chosen]); }}>
        <option value="">–</option>${names.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`}
      <input type="text" maxlength="60" aria-label=${t("preset name")} placeholder=${t("preset name")} value=${name} onInput=${(event) => setName(event.currentTarget.value)}
        onKeyDown=${(event) => { if (event.key === "Enter") { event.preventDefault(); save(); } }} />
      <button type="button" disabled=${!name.trim()} onClick=${save}><${Icon} name="plus" /> ${t("save")}</button>
      ${name.trim() in presets && html`<button type="button" onClick=${drop}>${t("delete")}</button>`}
    </div></div>`;
}
