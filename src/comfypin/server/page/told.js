// What the server says, in the reader's language: its sentences are English. Where a text of our own says as much, it
// stands instead; where the server's has facts (names, limits), it follows.
import { html } from "./vendor/htm-preact.js";
import { own, t } from "./i18n.js";

// "error QueueFull", else by HTTP's status; null if the reader's language has none.
const nameOf = (error) => (error.body && error.body.error_type ? own(`error ${error.body.error_type}`) : null);

// One line for a message. A text that ends with a colon wants the server's facts.
export function told(error) {
  if (!error.status) return error.message || t("no connection");
  const text = nameOf(error) || own(`http ${error.status}`) || (error.status >= 500 && own("http 500"));
  if (!text) return error.message || t("http failed", { status: error.status });
  return text.endsWith(":") ? `${text} ${error.message}` : text;
}

// Why a job failed, in a few words; null if only the server's own name says it.
export function causeOf(error) {
  const text = own(`error ${error.name}`) || (error.remedy_name && own(`cause ${error.remedy_name}`)) || (error.family && own(`family failed ${error.family}`));
  return text ? text.replace(/:$/, "") : null;
}

// What stands between backticks is for a terminal.
export const withCode = (text) => text.split("`").map((part, place) => (place % 2 ? html`<code>${part}</code>` : part));

// A message with a list below it, in one line.
export const inOneLine = (message) => message.replace(/:\n\s*- /, ": ").replace(/\n\s*- /g, "; ");

// A text of the server's, marked as English for screen readers and for the browser's hyphens.
export const English = ({ text, className = "" }) => html`<span class=${className} lang="en">${text}</span>`;

function Finding({ finding }) {
  if (typeof finding === "string") return html`<${English} text=${finding} />`;
  const message = finding.message || JSON.stringify(finding);
  const isUninstalled = finding.code === "class_unknown" && message.includes("does not have the node"); // of a ComfyUI without a lock
  const text = own(isUninstalled ? "finding class_uninstalled" : `finding ${finding.code}`);
  if (!text) return html`<${English} text=${`${finding.input ? `${finding.input}: ` : ""}${message}`} />`;
  const filled = text.replace("{input}", finding.input || "?").replace("{class}", finding.class_type || "?");
  const near = finding.closest && finding.closest.length ? `; ${t("near names")} ${finding.closest.join(", ")}` : "";
  return html`<span>${filled}${near}</span> <${English} className="dim small" text=${`(${message})`} />`;
}

// What a failed job's workflow lacks has codes, so it is said in the reader's language; other lists are sentences of the
// message itself.
export const listedFindings = (error) => (error && (error.findings || []).some((finding) => finding.code) ? error.findings : null);

// One finding about the engine says all of its unknown classes.
const spoken = (findings) => (findings.some((one) => one.code === "engine_without_models") ? findings.filter((one) => one.code !== "class_unknown") : findings);

// What is wrong with a workflow, node by node.
export const Findings = ({ findings }) => html`<ul>
  ${spoken(findings).map((finding, place) => html`<li key=${place}>${finding.node && html`<strong>${finding.title || finding.class_type || ""} #${finding.node}: </strong>`}<${Finding} finding=${finding} />
    ${finding.pin && html` <span class="chip">${t("pin", { name: finding.pin })}</span>`}${finding.pack && finding.pack !== finding.pin && html` <span class="chip">${t("pack", { name: finding.pack })}</span>`}</li>`)}
</ul>`;
