// Signing in: the token goes to the server once, and a cookie that scripts cannot read comes back.
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { post } from "./api.js";
import { t } from "./i18n.js";
import { told } from "./told.js";
import { LanguageButton } from "./ui.js";

// The code of a one-time link stands after the #, where no server and no proxy logs it.
export async function redeemLink() {
  const found = /^#link=([\w-]+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, "", location.pathname + location.search);
  try {
    await post("session", { link: found[1] });
    return null;
  } catch (error) {
    return error.status === 403 ? t("link used") : told(error);
  }
}

export function SignIn({ onSignedIn, onLanguage, failure }) {
  const [wrong, setWrong] = useState(failure || "");
  const [isBusy, setBusy] = useState(false);
  const field = useRef(null);
  useEffect(() => field.current.focus(), []);
  async function send(event) {
    event.preventDefault();
    setBusy(true);
    try {
      await post("session", { token: field.current.value });
      await onSignedIn();
    } catch (error) {
      setWrong(error.status === 403 ? t("token wrong") : told(error));
      setBusy(false);
      field.current.select();
    }
  }
  return html`<main class="signin">
    <form class="signin-card" onSubmit=${send}>
      <img class="signin-mark" src="page/icon.svg" alt="" width="44" height="44" />
      <h1>comfypin</h1>
      <p class="dim">${t("signin why")}</p>
      <input class="visually-hidden" type="text" name="username" autocomplete="username" value="comfypin" tabindex="-1" aria-hidden="true" readonly />
      <label for="token">${t("token")}</label>
      <input id="token" ref=${field} type="password" name="password" autocomplete="current-password" required spellcheck="false"
        aria-invalid=${wrong ? "true" : "false"} aria-describedby="signin-wrong" />
      <p id="signin-wrong" class="wrong" role="alert">${wrong}</p>
      <button class="primary" type="submit" disabled=${isBusy}>${t("sign in")}</button>
      <p class="dim small">${t("token where")}</p>
      <div class="signin-language"><${LanguageButton} onLanguage=${onLanguage} /></div>
    </form>
  </main>`;
}
