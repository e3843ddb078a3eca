// The page's texts: English and Russian, by the browser's language unless the user chose one.
import { en } from "./lang-en.js";
import { ru } from "./lang-ru.js";

const languages = { en, ru };
const kept = read("language");
export let language = kept in languages ? kept : (navigator.languages || ["en"]).some((tag) => /^(ru|be|uk|kk)\b/i.test(tag)) ? "ru" : "en";
let plural = new Intl.PluralRules(language);
document.documentElement.lang = language;

export function setLanguage(name) {
  language = name;
  plural = new Intl.PluralRules(name);
  document.documentElement.lang = name;
  write("language", name);
}

// t("models sum", {n: 3}): a text with {n} in it, or an object of plural forms by Intl.PluralRules.
export function t(key, facts = {}) {
  let text = languages[language][key] ?? en[key] ?? key;
  if (typeof text === "object") text = text[plural.select(facts.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in facts ? facts[name] : whole));
}

// A text that this language has itself; what it lacks the server says in English.
export const own = (key) => languages[language][key] ?? null;

export const number = (value, digits = 0) => new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = t("units").split(" ");
  let place = 0;
  while (value >= 1000 && place < units.length - 1) { value /= 1000; place += 1; }
  return `${number(value, value < 10 && place ? 1 : 0)}\u00a0${units[place]}`;
}

export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value < 1) return `${number(value, 2)}\u00a0${t("s")}`;
  if (value < 60) return `${number(value, value < 10 ? 1 : 0)}\u00a0${t("s")}`;
  const minutes = Math.floor(value / 60);
  if (minutes < 60) return `${minutes}:${String(Math.floor(value % 60)).padStart(2, "0")}`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}\u00a0${t("h")}`;
}

export function ago(iso) {
  const passed = (Date.now() - Date.parse(iso)) / 1000;
  if (passed < 45) return t("just now");
  const relative = new Intl.RelativeTimeFormat(language, { style: "short", numeric: "always" });
  if (passed < 3600) return relative.format(-Math.round(passed / 60), "minute");
  if (passed < 86400) return relative.format(-Math.round(passed / 3600), "hour");
  return relative.format(-Math.round(passed / 86400), "day");
}

export const clock = (iso) => new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso));

// What the user chose stays in this browser; a browser that keeps nothing works too.
export function read(name, otherwise = null) {
  try { return JSON.parse(localStorage.getItem(`comfypin.${name}`)) ?? otherwise; } catch { return otherwise; }
}

export function write(name, value) {
  try { localStorage.setItem(`comfypin.${name}`, JSON.stringify(value)); } catch { /* private mode */ }
}
