// The API of this server, out of its own openapi.json: every path, what it takes, and the line for a shell.
import { html, render, useState } from "./vendor/htm-preact.js";
import { address, get } from "./api.js";
import { ru } from "./docs-ru.js";
import { language, t } from "./i18n.js";
import { applyTheme, nextTheme } from "./theme.js";
import { IconButton, LanguageButton, Messages, copyText } from "./ui.js";

const methods = ["get", "post", "put", "delete"];
let components = {};
const say = (text) => (language === "ru" && ru[text]) || text;
// The name of a workflow is its author's; what stands around it is ours.
const summaryOf = (path, { summary = "" }) => {
  const name = path.replace("/workflows/", "");
  return summary === `Run ${name}` ? say("Run {name}").replace("{name}", name) : say(summary);
};
const resolve = (schema) => (schema && schema.$ref ? resolve(components[schema.$ref.split("/").pop()]) : schema) || {};

function typeOf(schema) {
  const found = resolve(schema);
  const several = found.anyOf || found.oneOf;
  if (several) return several.map(typeOf).filter((type) => type !== "null").join(" | ");
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.type === "array") return `${typeOf(found.items)}[]`;
  return found.title && found.type === "object" ? found.title : found.type || "any";
}

function Properties({ schema, depth = 0 }) {
  const found = resolve(schema);
  const entries = Object.entries(found.properties || {});
  if (!entries.length) return null;
  const needed = new Set(found.required || []);
  return html`<div class="scroll-x" tabindex="0" role="group" aria-label=${say("Fields")}><table class="table docs-table"><tbody>${entries.map(([name, one]) => {
    const inner = resolve(one.anyOf ? one.anyOf.find((part) => resolve(part).properties) || one : one.items || one);
    return html`<tr key=${name}><th scope="row"><code>${name}</code>${needed.has(name) && html`<span class="wrong" title=${say("required")}> *</span>`}</th><td class="dim">${typeOf(one)}</td>
      <td>${say(resolve(one).description || one.description || "")}${depth < 2 && inner.properties && html`<details><summary>${say("fields")}</summary><${Properties} schema=${inner} depth=${depth + 1} /></details>`}</td></tr>`;
  })}</tbody></table></div>`;
}

function shellLine(path, method, body) {
  const filled = address(path.replace(/\{(\w+)\}/g, (_, name) => name.toUpperCase()));
  return `curl -H "Authorization: Bearer $TOKEN"${method === "get" ? "" : ` -X ${method.toUpperCase()}`} ${body ? `-H "Content-Type: application/json" -d '${body}' ` : ""}"${decodeURI(filled)}"`;
}

function Operation({ path, method, operation }) {
  const [isOpen, setOpen] = useState(false);
  const content = (operation.requestBody && operation.requestBody.content) || {};
  const schema = content["application/json"] && content["application/json"].schema;
  const line = shellLine(path, method, schema ? "{}" : "");
  return html`<details class="json" onToggle=${(event) => setOpen(event.currentTarget.open)}><summary><span class=${`method method-${method}`}>${method.toUpperCase()}</span> <code>${path}</code> <span class="dim docs-summary">${summaryOf(path, operation)}</span></summary>
    ${isOpen && html`<div class="json-body">
      ${operation.description && html`<p>${say(operation.description)}</p>`}
      ${(operation.parameters || []).length > 0 && html`<h3>${say("Parameters")}</h3><div class="scroll-x" tabindex="0" role="group" aria-label=${say("Parameters")}><table class="table docs-table"><tbody>${operation.parameters.map((one) => html`<tr key=${one.name}><th scope="row"><code>${one.name}</code></th><td class="dim">${say(one.in)}, ${typeOf(one.schema)}</td><td>${say(one.description || (one.schema && one.schema.description) || "")}</td></tr>`)}</tbody></table></div>`}
      ${schema && html`<h3>${say("Body")}</h3><${Properties} schema=${schema} />`}
      <h3>${say("In a shell")}</h3><pre tabindex="0" aria-label=${say("Shell command")}>${line}</pre><p><button type="button" onClick=${() => copyText(line)}>${say("Copy")}</button></p>
    </div>`}</details>`;
}

function Docs({ document: api }) {
  const [text, setText] = useState("");
  const [, again] = useState(0);
  document.title = say("API of comfypin");
  const tags = new Map((api.tags || []).map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of methods) {
      const operation = item[method];
      if (!operation || !`${path} ${operation.summary || ""} ${summaryOf(path, operation)}`.toLowerCase().includes(text.toLowerCase())) continue;
      const name = (operation.tags && operation.tags[0]) || "other";
      if (!tags.has(name)) tags.set(name, { name, operations: [] });
      tags.get(name).operations.push({ path, method, operation });
    }
  }
  return html`<main class="page docs"><div class="row wrap"><h1>${say("API of comfypin")} ${api.info.version}</h1>
      <div class="filters"><input type="search" aria-label=${say("Search")} placeholder=${say("Search")} value=${text} onInput=${(event) => setText(event.currentTarget.value)} /><a class="primary" href="./">${say("To the page")}</a><${LanguageButton} onLanguage=${() => again((n) => n + 1)} /><${IconButton} icon="sun" label=${t("theme")} onClick=${nextTheme} /></div></div>
    <p class="dim">${say("Every path but /ping needs")} <code>Authorization: Bearer TOKEN</code>. ${say("The whole description:")} <a href="openapi.json">openapi.json</a>.</p>
    ${[...tags.values()].filter((tag) => tag.operations.length).map((tag) => html`<section key=${tag.name}><h2>${say(tag.name)}</h2>${tag.description && html`<p class="dim">${say(tag.description)}</p>`}
      ${tag.operations.map((one) => html`<${Operation} key=${one.method + one.path} ...${one} />`)}</section>`)}</main><${Messages} />`;
}

applyTheme();
get("openapi.json").then(
  (api) => { components = (api.components && api.components.schemas) || {}; render(html`<${Docs} document=${api} />`, document.getElementById("app")); },
  (error) => render(html`<main class="page"><div class="empty"><p class="empty-title">${error.message}</p><a class="primary" href="./">${say("Sign in")}</a></div></main>`, document.getElementById("app")),
);
