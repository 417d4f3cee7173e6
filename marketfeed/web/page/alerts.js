/* Alerts: live by severity, history, silences. */
import { alertFeed } from "./alert_feed.js";
import { AlertHistory } from "./alert_history.js";
import { announce, h, icon, setAttribute, setText } from "./dom.js";
import { isOpen, SEVERITIES } from "./episodes.js";
import { age, clock, count } from "./format.js";
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
    this._silences = new Silences();
    this._history = new AlertHistory();
    this._tabs = h(
      "nav",
      { class: "subtabs", "aria-label": "Alerts" },
      ...PARTS.map(([id, text]) => h("a", { href: `#alerts/${id}`, text })),
    );
    this._off = h("div", { class: "empty panel off", hidden: true }, ...offText());
    this._live = h("div", { class: "stack" }, this._consumerBar(), this._filterBar(), this._lists());
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
    session.on("feed", () => this._showConsumer());
  }

  _consumerBar() {
    this._name = h("input", {
      id: "consumer",
      maxlength: 64,
      pattern: "[!-~]+",
      required: true,
      placeholder: "desk-1",
      autocomplete: "off",
      spellcheck: "false",
    });
    this._start = h(
      "select",
      { id: "consumer-start" },
      h("option", { value: "now", text: "from now on" }),
      h("option", { value: "all", text: "all in the log" }),
    );
    this._begin = h(
      "form",
      { class: "consumer", on: { submit: (event) => this._become(event) } },
      h(
        "label",
        { class: "field" },
        h("span", { class: "label", text: "Acknowledge as consumer" }),
        this._name,
      ),
      h("label", { class: "field" }, h("span", { class: "label", text: "If it is new" }), this._start),
      h("button", { type: "submit", text: "Take alerts" }),
      h("p", {
        class: "muted hint",
        text: "A consumer keeps every alert until it is acknowledged, over reconnects and restarts.",
      }),
    );
    this._as = h("strong", { id: "acting-as" });
    this._due = h("span", { class: "num", id: "due" });
    this._all = h(
      "button",
      { type: "button", id: "ack-all", on: { click: () => this._acknowledge(alertFeed.episodes.due()) } },
      icon("check"),
      "Acknowledge all",
    );
    this._active = h(
      "div",
      { class: "consumer", hidden: true },
      h("span", {}, "Acknowledging as ", this._as),
      this._due,
      this._all,
      h("button", { type: "button", class: "quiet", text: "Stop", on: { click: () => this._leave() } }),
    );
    this._fault = h("p", { class: "notice", role: "status", hidden: true });
    return h("div", { class: "panel consumer-bar" }, this._begin, this._active, this._fault);
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

  _become(event) {
    event.preventDefault();
    alertFeed.become(this._name.value.trim(), this._start.value, () => this._showConsumer());
    announce(`Acknowledging as ${this._name.value}`);
  }

  _leave() {
    alertFeed.leave();
    this._showConsumer();
  }

  _showConsumer() {
    const { consumer } = alertFeed;
    this._begin.hidden = consumer !== null;
    this._active.hidden = consumer === null;
    this._fault.hidden = !consumer?.problem;
    if (consumer) setText(this._as, consumer.name);
    setText(this._fault, consumer?.problem ?? "");
    this._paint(true);
  }

  async _acknowledge(ids) {
    if (ids.length === 0) return;
    try {
      await alertFeed.acknowledge(ids);
      announce(`${ids.length} acknowledged`);
      this._fault.hidden = true;
    } catch (error) {
      this._fault.hidden = false;
      setText(this._fault, `Not acknowledged: ${error.message}. They stay due.`);
    }
    this._paint(true);
  }

  /** Show what has changed; rows do not move under a pointer that moves. */
  _paint(now = false) {
    if (!this._shown || this._part !== "live") return;
    const { episodes } = alertFeed;
    const due = episodes.due().length;
    setText(this._due, `${count(due)} unacknowledged`);
    this._all.disabled = due === 0;
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
    return this._acknowledge([...one.due]);
  }

  silence(one) {
    this._silences.prefill(one.rule, one.symbol);
    location.hash = "alerts/silences";
  }
}

/** One episode. */
class AlertRow {
  constructor(one, view) {
    this._one = one;
    this._state = h("span", { class: "alert-state num" });
    this._message = h("p", { class: "alert-message" });
    this._tries = h("span", { class: "muted num" });
    this._ack = h(
      "button",
      { type: "button", class: "ack", on: { click: () => view.acknowledge(one) } },
      icon("check"),
      "Acknowledge",
    );
    this._acked = h("span", { class: "acked muted" }, icon("check"), "acknowledged");
    const symbol =
      one.symbol && session.book.rows.has(one.symbol)
        ? h("a", { href: `#watch/${encodeURIComponent(one.symbol)}`, text: one.symbol })
        : h("span", { text: one.symbol });
    this.element = h(
      "li",
      { class: "alert" },
      h("time", { class: "num", text: clock((one.began || one.cleared) - session.book.offsetMs) }),
      h("span", { class: "alert-rule", text: one.rule }),
      h("span", { class: "alert-symbol" }, symbol),
      this._message,
      this._state,
      this._tries,
      h(
        "span",
        { class: "alert-actions" },
        this._ack,
        this._acked,
        one.notice
          ? null
          : h("button", {
              type: "button",
              class: "quiet",
              text: "Silence",
              "aria-label": `Silence ${one.rule} ${one.symbol}`,
              on: { click: () => view.silence(one) },
            }),
      ),
    );
    this._ack.setAttribute("aria-label", `Acknowledge ${one.rule} ${one.symbol}`);
  }

  paint() {
    const one = this._one;
    setText(this._message, one.message);
    setText(this._state, stateText(one));
    setAttribute(this.element, "data-open", isOpen(one) ? "" : null);
    setText(this._tries, one.tries > 1 && one.due.size > 0 ? `try ${one.tries}` : "");
    this._ack.hidden = one.due.size === 0;
    this._acked.hidden = one.due.size > 0 || one.acknowledged === 0;
  }
}

function stateText(one) {
  if (one.notice) return "notice";
  if (isOpen(one)) return `open ${age(Math.max(0, session.book.now() - one.began))}`;
  return one.began ? `cleared after ${age(Math.max(0, one.cleared - one.began))}` : "cleared";
}

function noneText(episodes) {
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

function offText() {
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
