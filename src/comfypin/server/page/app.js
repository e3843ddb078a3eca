// The shell: who is signed in, which view the address names, and the bar around it.
import { html, render, useEffect, useErrorBoundary, useState } from "./vendor/htm-preact.js";
import { get, onSignedOut, remove } from "./api.js";
import { language, t } from "./i18n.js";
import { QueueView } from "./queue.js";
import { SignIn, redeemLink } from "./signin.js";
import { changed, follow, stop, store, useStore } from "./store.js";
import { applyTheme, nextTheme } from "./theme.js";
import { English } from "./told.js";
import { Icon, IconButton, LanguageButton, Messages } from "./ui.js";

// Views that are not needed for the first paint come when they are opened.
const later = {
  gallery: () => import("./gallery.js"),
  run: () => import("./run.js"),
  job: () => import("./job.js"),
  system: () => import("./system.js"),
};
const tabs = ["queue", "gallery", "run", "system"];

export function parseRoute() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name: name || "queue", rest: rest.map(decodeURIComponent), query: new URLSearchParams(query || "") };
}

function useRoute() {
  const [route, setRoute] = useState(parseRoute);
  useEffect(() => {
    const move = () => setRoute(parseRoute());
    addEventListener("hashchange", move);
    return () => removeEventListener("hashchange", move);
  }, []);
  return route;
}

function View({ route }) {
  const [module, setModule] = useState(null);
  const [failure, reset] = useErrorBoundary();
  const [lost, setLost] = useState(null); // the server is away, or has been upgraded
  useEffect(() => {
    reset();
    setLost(null);
    if (!later[route.name]) return;
    let isWanted = true;
    later[route.name]().then((loaded) => { if (isWanted) setModule({ name: route.name, View: loaded.View }); }, setLost);
    return () => { isWanted = false; };
  }, [route.name]);
  if (failure) return html`<p class="wrong" role="alert">${String(failure.message || failure)}</p>`;
  if (lost) return html`<div class="page"><div class="empty"><p class="empty-title">${t("no connection")}</p><button type="button" class="primary" onClick=${() => location.reload()}>${t("load again")}</button></div></div>`;
  if (!later[route.name]) return html`<${QueueView} route=${route} />`;
  return module && module.name === route.name ? html`<${module.View} route=${route} />` : null;
}

function LiveMark() {
  const { live, queue } = useStore((s) => ({ live: s.live, queue: s.queue }));
  const text = live === "lost" ? t("reconnecting") : t("running waiting", { running: queue.running, waiting: queue.waiting });
  return html`<span class=${`live live-${live === "lost" ? "lost" : queue.running ? "busy" : "idle"}`} role="status"><span class="live-dot" />${text}</span>`;
}

function Shell({ onLanguage }) {
  const route = useRoute();
  const paused = useStore((s) => s.queue.paused);
  useEffect(() => { document.title = `${t(tabs.includes(route.name) ? route.name : "job")} · comfypin`; }, [route.name, language]);
  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,textarea,select,dialog")) return;
      const place = Number(event.key);
      if (place >= 1 && place <= tabs.length) location.hash = `#/${tabs[place - 1]}`;
      if (event.key === "/") {
        const search = document.querySelector("input[type=search]");
        if (search) { event.preventDefault(); search.focus(); }
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  const current = route.name === "job" ? "queue" : route.name;
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById("main").focus(); }}>${t("skip")}</a>
    <header class="top">
      <a class="brand" href="#/queue" aria-label="comfypin"><img src="page/icon.svg" alt="" width="22" height="22" /><span>comfypin</span></a>
      <nav class="tabs" aria-label=${t("views")}>
        ${tabs.map((name) => html`<a key=${name} class="tab" href=${`#/${name}`} aria-current=${current === name ? "page" : undefined}>
          <${Icon} name=${name} /><span>${t(name)}</span></a>`)}
      </nav>
      <div class="top-end">
        <${LiveMark} />
        <${LanguageButton} onLanguage=${onLanguage} />
        <${IconButton} icon="sun" label=${t("theme")} onClick=${nextTheme} />
        ${store.session.token_needed && html`<${IconButton} icon="out" label=${t("sign out")} onClick=${signOut} />`}
      </div>
    </header>
    ${paused && html`<p class="paused" role="alert"><${Icon} name="warn" /> <span>${t("paused")} <${English} text=${paused} /></span></p>`}
    <main id="main" tabindex="-1"><${View} route=${route} /></main>`;
}

async function signOut() {
  try { await remove("session"); } finally {
    stop();
    store.jobs.clear();
    store.session = { ...store.session, signed_in: false };
    changed();
  }
}

function App({ failure }) {
  const session = useStore((s) => s.session);
  const [, again] = useState(0);
  const enter = async () => { store.session = await get("session"); follow(); changed(); };
  const isIn = session && (session.signed_in || !session.token_needed);
  return html`${isIn
    ? html`<${Shell} onLanguage=${() => again((n) => n + 1)} />`
    : html`<${SignIn} onSignedIn=${enter} onLanguage=${() => again((n) => n + 1)} failure=${failure} />`}<${Messages} />`;
}

async function begin() {
  applyTheme();
  const failure = await redeemLink();
  onSignedOut(() => { if (store.session && store.session.signed_in) { stop(); store.session = { ...store.session, signed_in: false }; changed(); } });
  for (;;) {
    try { store.session = await get("session"); break; } catch { await new Promise((done) => setTimeout(done, 1500)); }
  }
  if (store.session.signed_in || !store.session.token_needed) follow();
  render(html`<${App} failure=${failure} />`, document.getElementById("app"));
}

begin();
