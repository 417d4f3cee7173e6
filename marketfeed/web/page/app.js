/* Start: the frame of the page, then the view that the address names, each built when first shown. */
import { AccessView } from "./access.js";
import { AlertsView } from "./alerts.js";
import { ConnectionView } from "./connection.js";
import { $ } from "./dom.js";
import { LatencyView } from "./latency.js";
import { session } from "./session.js";
import { Shell } from "./shell.js";
import { readColours } from "./spark.js";
import { TiersView } from "./tiers.js";
import { WatchView } from "./watch.js";

const VIEWS = {
  watch: WatchView,
  tiers: TiersView,
  latency: LatencyView,
  alerts: AlertsView,
  connection: ConnectionView,
  access: AccessView,
};

const built = new Map();
let current = null;

/** Show the view of `#name/argument`. */
function route() {
  const [name, argument] = location.hash.slice(1).split("/");
  const wanted = Object.hasOwn(VIEWS, name) ? name : "watch";
  if (wanted !== current) {
    built.get(current)?.hide();
    if (current) $(`view-${current}`).hidden = true;
    current = wanted;
    const section = $(`view-${wanted}`);
    section.hidden = false;
    if (!built.has(wanted)) built.set(wanted, new VIEWS[wanted](section));
    for (const link of document.querySelectorAll(".tabs a")) {
      if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title =
      wanted === "watch" ? "marketfeed" : `${wanted[0].toUpperCase()}${wanted.slice(1)} · marketfeed`;
  }
  built.get(wanted).show(decoded(argument));
}

/** The text of a part of the address; null for none, and for one that is not well encoded. */
function decoded(part) {
  try {
    return part === undefined ? null : decodeURIComponent(part);
  } catch {
    return null;
  }
}

readColours();
window.marketfeedTheme.onChange(() => {
  readColours();
  for (const view of built.values()) view.recolour?.();
});
new Shell();
addEventListener("hashchange", route);
route();
session.start();
