/* Alerts: live by severity, history, silences. */
import { alertFeed } from "./alert_feed.js";
import { AlertHistory } from "./alert_history.js";
import { AlertRow } from "./alert_row.js";
import { noneText, offText } from "./alert_texts.js";
import { ConsumerBar } from "./consumer_bar.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { isOpen, SEVERITIES } from "./episodes.js";
import { count } from "./format.js";
import { matches, termsOf } from "./ordering.js";
import { session } from "./session.js";
import { Silences } from "./silences.js";

const PAINT_MS = 250;
const HOLD_MS = 1500;
const MOST = 60; // rows per severity
const PARTS = [
  ["live", "Live"],
  ["history", "History"],
  ["silences", "Silences"],
];

export class AlertsView {
  constructor(section) {
    section.classList.add("scroll");
    this._severities = new Set(SEVERITIES);
    this._openOnly = false;
    this._terms = null;
    this._pointedAt = -Infinity;
    this._rows = new Map();
    this._consumer = new ConsumerBar(() => this._paint(true));
    this._silences = new Silences();
    this._history = new AlertHistory();
    this._tabs = h(
      "nav",
      { class: "subtabs", "aria-label": "Alerts" },
      ...PARTS.map(([id, text]) => h("a", { href: `#alerts/${id}`, text })),
    );
    this._off = h("div", { class: "empty panel off", hidden: true }, ...offText());
    this._live = h("div", { class: "stack" }, this._consumer.element, this._filterBar(), this._lists());
    this._parts = { live: this._live, history: this._history.element, silences: this._silences.element };
    section.append(
      h(
        "div",
        { class: "page" },
        h("div", { class: "page-head with-actions" }, h("h2", { text: "Alerts" }), this._tabs),
        this._off,
        ...Object.values(this._parts),
      ),
    );
    session.on("engine", () => this._shown && this._showOff());
    session.on("feed", () => this._consumer.update());
  }

  _filterBar() {
    const chip = (severity) =>
      h(
        "button",
        {
          type: "button",
          class: "chip severity",
          "data-severity": severity,
          "aria-pressed": "true",
          on: { click: (event) => this._toggle(severity, event.currentTarget) },
        },
        h("i", { class: "mark" }),
        severity,
        h("span", { class: "count num", text: "0" }),
      );
    this._chips = new Map(SEVERITIES.map((severity) => [severity, chip(severity)]));
    this._filter = h("input", {
      type: "search",
      id: "alert-filter",
      placeholder: "Rule, symbol or text",
      autocomplete: "off",
      spellcheck: "false",
      on: { input: () => this._search() },
    });
    this._onlyOpen = h("button", {
      type: "button",
      class: "chip",
      "aria-pressed": "false",
      text: "Open only",
      on: { click: () => this._toggleOpen() },
    });
    return h(
      "div",
      { class: "bar flat", role: "search", "aria-label": "Alerts" },
      h("div", { class: "chips", role: "group", "aria-label": "Severities" }, ...this._chips.values()),
      this._onlyOpen,
      h(
        "label",
        { class: "field search" },
        h("span", { class: "sr", text: "Filter alerts" }),
        icon("search"),
        this._filter,
      ),
    );
  }

  _lists() {
    this._groups = new Map(
      SEVERITIES.map((severity) => {
        const rows = h("ul", { class: "alert-rows" });
        const total = h("span", { class: "muted num" });
        const element = h(
          "section",
          { class: "panel severity-group", "data-severity": severity, "aria-label": `${severity} alerts` },
          h(
            "header",
            {},
            h("i", { class: "mark" }),
            h("h3", { text: severity[0].toUpperCase() + severity.slice(1) }),
            total,
          ),
          rows,
        );
        return [severity, { element, rows, total }];
      }),
    );
    this._none = h("div", { class: "empty panel" });
    const list = h(
      "div",
      { class: "stack" },
      ...[...this._groups.values()].map(({ element }) => element),
      this._none,
    );
    list.addEventListener("pointermove", () => {
      this._pointedAt = performance.now();
    });
    return list;
  }

  show(part) {
    this._shown = true;
    const wanted = part in this._parts ? part : "live";
    for (const [id, element] of Object.entries(this._parts)) element.hidden = id !== wanted;
    for (const link of this._tabs.children)
      setAttribute(link, "aria-current", link.hash === `#alerts/${wanted}` ? "page" : null);
    this._part = wanted;
    this._showOff();
    if (wanted === "history") this._history.show();
    if (wanted === "silences") this._silences.show();
    clearInterval(this._timer);
    this._timer = setInterval(() => this._paint(), PAINT_MS);
    this._paint(true);
  }

  hide() {
    this._shown = false;
    clearInterval(this._timer);
  }

  /** Alerts are off: say how to turn them on, and nothing else. */
  _showOff() {
    const off = alertFeed.on === false;
    this._off.hidden = !off;
    for (const [id, element] of Object.entries(this._parts)) element.hidden = off || id !== this._part;
    this._tabs.hidden = off;
  }

  _toggle(severity, button) {
    if (!this._severities.delete(severity)) this._severities.add(severity);
    button.setAttribute("aria-pressed", this._severities.has(severity));
    this._paint(true);
  }

  _toggleOpen() {
    this._openOnly = !this._openOnly;
    this._onlyOpen.setAttribute("aria-pressed", this._openOnly);
    this._paint(true);
  }

  _search() {
    this._terms = termsOf(this._filter.value);
    this._paint(true);
  }

  _keeps(one) {
    if (this._openOnly && !isOpen(one)) return false;
    return (
      !this._terms ||
      [one.rule, one.symbol, one.message].some((text) => matches(text.toUpperCase(), this._terms))
    );
  }

  /** Show what has changed; rows do not move under a pointer that moves. */
  _paint(now = false) {
    if (!this._shown || this._part !== "live") return;
    const { episodes } = alertFeed;
    this._consumer.paint();
    const moved =
      now || (performance.now() - this._pointedAt > HOLD_MS && episodes.version !== this._version);
    if (moved) this._arrange(episodes);
    for (const row of this._rows.values()) row.paint();
  }

  _arrange(episodes) {
    this._version = episodes.version;
    const found = episodes.bySeverity((one) => this._keeps(one));
    const rows = new Map();
    let any = false;
    for (const [severity, { element, rows: host, total }] of this._groups) {
      const list = found[severity];
      setText(this._chips.get(severity).lastChild, count(list.length));
      const shown = this._severities.has(severity) && list.length > 0;
      element.hidden = !shown;
      any ||= shown;
      if (!shown) continue;
      setText(total, list.length > MOST ? `the newest ${MOST} of ${count(list.length)}` : "");
      list.slice(0, MOST).forEach((one, index) => {
        const row = this._rows.get(one.key) ?? new AlertRow(one, this);
        rows.set(one.key, row);
        if (host.children[index] !== row.element)
          host.insertBefore(row.element, host.children[index] ?? null);
      });
      while (host.children.length > Math.min(MOST, list.length)) host.lastChild.remove();
    }
    this._rows = rows;
    this._none.hidden = any;
    if (!any) this._none.replaceChildren(...noneText(episodes));
  }

  acknowledge(one) {
    return this._consumer.acknowledge([...one.due]);
  }

  silence(one) {
    this._silences.prefill(one.rule, one.symbol);
    location.hash = "alerts/silences";
  }
}
