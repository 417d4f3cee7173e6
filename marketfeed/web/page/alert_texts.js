/* What the view of alerts says where there are none. */
import { alertFeed } from "./alert_feed.js";
import { h } from "./dom.js";

/** What is shown in place of an empty list. */
export function noneText(episodes) {
  if (episodes.byKey.size > 0)
    return [
      h("p", { class: "empty-title", text: "No alert matches" }),
      h("p", { text: "Other severities, states or texts are filtered out." }),
    ];
  if (alertFeed.problem)
    return [
      h("p", { class: "empty-title", text: "The alert log cannot be read" }),
      h("p", { text: alertFeed.problem }),
    ];
  return [
    h("p", { class: "empty-title", text: "No alert" }),
    h("p", {
      text: "What the rules in [[alerts.rules]] find, and notices of programs, appear here as they come.",
    }),
  ];
}

const EXAMPLE = `[[alerts.rules]]
name = "jump"
type = "move"
symbols = "*"
severity = "warning"
percent = 1.0        # of the lowest or highest price
window_s = 10.0      # in so many seconds
cooldown_s = 5.0`;

/** How to turn alerts on. */
export function offText() {
  return [
    h("p", { class: "empty-title", text: "Alerts are off" }),
    h("p", {
      text: "Add a rule to config.toml and restart the engine, or send it SIGHUP. With access control, the token needs the channel “alerts” too.",
    }),
    h("pre", { tabindex: "0", text: EXAMPLE, "aria-label": "A rule, as an example" }),
    h(
      "p",
      {},
      "Types of rules: move, spread, stale, feed_down, anomaly and others, in ",
      h("code", { text: "docs/alerts.md" }),
      ".",
    ),
  ];
}
