// Dark or light: as the browser's scheme says, or as the user chose here.
import { read, write } from "./i18n.js";

export function applyTheme(theme = read("theme")) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

export function nextTheme() {
  const isDark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  const theme = isDark ? "light" : "dark";
  write("theme", theme);
  applyTheme(theme);
}
