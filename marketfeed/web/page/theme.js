/* Runs before the first paint, as a classic script: applies the theme that the person chose.
 * "auto" follows the system. Where storage is denied, the choice lasts as long as the page. */
"use strict";
(() => {
  const KEY = "marketfeed.theme";
  const root = document.documentElement;
  const listeners = new Set();
  let theme = "auto";
  try {
    theme = localStorage.getItem(KEY) || "auto";
  } catch {
    /* storage is denied */
  }

  const apply = () => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const listener of listeners) listener();
  };
  window.marketfeedTheme = {
    get: () => theme,
    set(value) {
      theme = value;
      try {
        localStorage.setItem(KEY, value);
      } catch {
        /* storage is denied */
      }
      apply();
    },
    /** Calls `listener` when colours change, by the switch or by the system. */
    onChange: (listener) => listeners.add(listener),
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  apply();
})();
