// The API of this server, out of its own openapi.json: every path, what it takes, and the line for a shell.
import { html, render, useState } from "./vendor/htm-preact.js";
import { address, get } from "./api.js";
import { copyText } from "./ui.js";

const methods = ["get", "post", "put", "delete"];
let components = {};
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
  return html`<div class="scroll-x" tabindex="0" role="region" aria-label="Fields"><table class="table docs-table"><tbody>${entries.map(([name, one]) => {
    const inner = resolve(one.anyOf ? one.anyOf.find((part) => resolve(part).properties) || one : one.items || one);
    return html`<tr key=${name}><th scope="row"><code>${name}</code>${needed.has(name) && html`<span class="wrong" title="required"> *</span>`}</th><td class="dim">${typeOf(one)}</td>
      <td>${resolve(one).description || one.description || ""}${depth < 2 && inner.properties && html`<details><summary>fields</summary><${Properties} schema=${inner} depth=${depth + 1} /></details>`}</td></tr>`;
  })}</tbody></table></div>`;
}

function shellLine(path, method, body) {
  const filled = address(path.replace(/\{(\w+)\}/g, "$1".toUpperCase()));
  return `curl -H "Authorization: Bearer $TOKEN"${method === "get" ? "" : ` -X ${method.toUpperCase()}`} ${body ? `-H "Content-Type: application/json" -d '${body}' ` : ""}"${decodeURI(filled)}"`;
}

function Operation({ path, method, operation }) {
  const [isOpen, setOpen] = useState(false);
  const content = (operation.requestBody && operation.requestBody.content) || {};
  const schema = content["application/json"] && content["application/json"].schema;
  const line = shellLine(path, method, schema ? "{}" : "");
  return html`<details class="json" onToggle=${(event) => setOpen(event.currentTarget.open)}><summary><span class=${`method method-${method}`}>${method.toUpperCase()}</span> <code>${path}</code> <span class="dim docs-summary">${operation.summary || ""}</span></summary>
    ${isOpen && html`<div class="json-body">
      ${operation.description && html`<p>${operation.description}</p>`}
      ${(operation.parameters || []).length > 0 && html`<h3>Parameters</h3><div class="scroll-x" tabindex="0" role="region" aria-label="Parameters"><table class="table docs-table"><tbody>${operation.parameters.map((one) => html`<tr key=${one.name}><th scope="row"><code>${one.name}</code></th><td class="dim">${one.in}, ${typeOf(one.schema)}</td><td>${one.description || (one.schema && one.schema.description) || ""}</td></tr>`)}</tbody></table></div>`}
      ${schema && html`<h3>Body</h3><${Properties} schema=${schema} />`}
      <h3>In a shell</h3><pre tabindex="0" aria-label="Shell command">${line}</pre><p><button type="button" onClick=${() => copyText(line)}>Copy</button></p>
    </div>`}</details>`;
}

function Docs({ document: api }) {
  const [text, setText] = useState("");
  const tags = new Map((api.tags || []).map((tag) => [tag.name, { ...tag, operations: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of methods) {
      const operation = item[method];
      if (!operation || !`${path} ${operation.summary || ""}`.toLowerCase().includes(text.toLowerCase())) continue;
      const name = (operation.tags && operation.tags[0]) || "other";
      if (!tags.has(name)) tags.set(name, { name, operations: [] });
      tags.get(name).operations.push({ path, method, operation });
    }
  }
  return html`<main class="page docs"><div class="row wrap"><h1>API of comfypin ${api.info.version}</h1>
      <div class="filters"><input type="search" aria-label="Search" placeholder="Search" value=${text} onInput=${(event) => setText(event.currentTarget.value)} /><a class="primary" href="./">To the page</a></div></div>
    <p class="dim">Every path but /ping needs <code>Authorization: Bearer TOKEN</code>. The whole description: <a href="openapi.json">openapi.json</a>.</p>
    ${[...tags.values()].filter((tag) => tag.operations.length).map((tag) => html`<section key=${tag.name}><h2>${tag.name}</h2>${tag.description && html`<p class="dim">${tag.description}</p>`}
      ${tag.operations.map((one) => html`<${Operation} key=${one.method + one.path} ...${one} />`)}</section>`)}</main>`;
}

get("openapi.json").then(
  (api) => { components = (api.components && api.components.schemas) || {}; render(html`<${Docs} document=${api} />`, document.getElementById("app")); },
  (error) => render(html`<main class="page"><div class="empty"><p class="empty-title">${error.message}</p><a class="primary" href="./">Sign in</a></div></main>`, document.getElementById("app")),
);
