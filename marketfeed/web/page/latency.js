/* Latency: what the engine measured per hop and tier, what this browser measured, and the ledger that checks both. */
import { h, icon, setText } from "./dom.js";
import { api } from "./engine.js";
import { change, ms, ns } from "./format.js";
import { whileVisible } from "./paint.js";
import { HOPS, HopRow, hopTable, LedgerRow, PARTS } from "./latency_tables.js";
import { session } from "./session.js";

const POLL_MS = 1000;
export class LatencyView {
  constructor(section) {
    section.classList.add("scroll");
    this._span = "last";
    this._rows = new Map();
    this._ledgers = new Map();
    this._spans = h(
      "div",
      { class: "chips", role: "group", "aria-label": "Period" },
      ...[
        ["last", "Last interval"],
        ["since_start", "Since the start"],
      ].map(([span, text]) =>
        h("button", {
          type: "button",
          class: "chip",
          "aria-pressed": span === this._span,
          text,
          on: { click: (event) => this._choose(span, event.currentTarget) },
        }),
      ),
    );
    this._links = h("div", { class: "links" });
    this._problem = h("p", { class: "notice", role: "status", hidden: true });
    this._browser = new HopRow("this browser", "receipt to this page");
    this._link = h("p", { class: "muted", id: "browser-link" });
    this._tiers = h("div", { class: "stack" });
    this._empty = h(
      "div",
      { class: "empty panel" },
      h("p", { class: "empty-title", text: "Nothing measured yet" }),
      h("p", { text: "Figures appear after the first interval, 10 s by default." }),
    );
    this._ledger = h("tbody");
    section.append(
      h(
        "div",
        { class: "page" },
        h("div", { class: "page-head with-actions" }, h("h2", { text: "Latency" }), this._spans, this._links),
        this._problem,
        h(
          "section",
          { class: "panel", "aria-label": "This browser" },
          h("header", {}, h("h3", { text: "This browser" }), this._link),
          hopTable([this._browser.element], "Latency to this browser"),
        ),
        this._tiers,
        this._empty,
        h(
          "section",
          { class: "panel", "aria-label": "Ledger" },
          h(
            "header",
            {},
            h("h3", { text: "Ledger" }),
            h("p", {
              class: "muted",
              text: "Every tick that a session subscribed to has one fate. All sessions, since the start.",
            }),
          ),
          h(
            "div",
            { class: "table-scroll", tabindex: "0", role: "group", "aria-label": "Ledger by tier" },
            h(
              "table",
              { class: "figures ledger" },
              h("caption", { class: "sr", text: "Ledger by tier" }),
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  h("th", { scope: "col", text: "Tier" }),
                  h("th", { scope: "col", text: "Matched" }),
                  ...PARTS.map((part) =>
                    h("th", { scope: "col", text: part[0].toUpperCase() + part.slice(1) }),
                  ),
                  h("th", { scope: "col", text: "Check" }),
                ),
              ),
              this._ledger,
            ),
          ),
        ),
      ),
    );
    session.on("second", () => this._shown && this._paintBrowser());
    session.on("engine", () => this._showLinks());
  }

  show() {
    this._shown = true;
    this._showLinks();
    this._stop ??= whileVisible(POLL_MS, () => this._read());
  }

  hide() {
    this._shown = false;
    this._stop?.();
    this._stop = undefined;
  }

  _choose(span, button) {
    this._span = span;
    for (const one of this._spans.children) one.setAttribute("aria-pressed", one === button);
    if (this._answer) this._paint();
  }

  async _read() {
    if (session.needsToken || this._reading) return;
    this._reading = true;
    try {
      this._answer = await api("/v1/latency");
      this._problem.hidden = true;
      if (this._shown) this._paint();
    } catch (error) {
      this._problem.hidden = false;
      setText(this._problem, `Figures are old: ${error.message}.`);
    } finally {
      this._reading = false;
    }
  }

  _paint() {
    const { tiers } = this._answer;
    const names = this._ordered(Object.keys(tiers));
    this._empty.hidden = names.length > 0;
    const key = names.map((name) => `${name}:${Object.keys(tiers[name].hops).sort()}`).join(" ");
    if (key !== this._key) this._rebuild(names, tiers, key);
    for (const name of names) {
      for (const [hop, figures] of Object.entries(tiers[name].hops))
        this._rows.get(`${name} ${hop}`)?.paint(figures[this._span]);
      setText(this._ages.get(name), ageText(tiers[name].age));
      if (tiers[name].ledger) this._ledgers.get(name).paint(tiers[name].ledger);
    }
  }

  /** The tiers as the engine orders them, the best first. */
  _ordered(names) {
    const order = session.tiers.map((one) => one.tier);
    return names.sort((a, b) => order.indexOf(a) - order.indexOf(b));
  }

  _rebuild(names, tiers, key) {
    this._key = key;
    this._rows.clear();
    this._ages = new Map();
    this._ledgers.clear();
    this._tiers.replaceChildren(
      ...names.map((name) => {
        const hops = Object.keys(HOPS).filter((hop) => hop in tiers[name].hops);
        const rows = hops.map((hop) => {
          const row = new HopRow(hop, HOPS[hop]);
          this._rows.set(`${name} ${hop}`, row);
          return row.element;
        });
        const text = h("p", { class: "muted num" });
        this._ages.set(name, text);
        return h(
          "section",
          { class: "panel", "aria-label": `Tier ${name}` },
          h("header", {}, h("h3", { text: name }), text),
          hopTable(rows, `Latency of tier ${name} by hop`),
        );
      }),
    );
    this._ledger.replaceChildren(
      ...names
        .filter((name) => tiers[name].ledger)
        .map((name) => {
          const row = new LedgerRow(name);
          this._ledgers.set(name, row);
          return row.element;
        }),
    );
  }

  _paintBrowser() {
    const found = session.statistics;
    if (!found) return;
    const { latencyMs: latency, roundTripMs, clockOffsetMs } = found;
    const inNs = (value) => Math.round((value ?? 0) * 1e6);
    this._browser.paint({
      count: latency?.count ?? 0,
      p50_ns: inNs(latency?.p50),
      p90_ns: inNs(latency?.p90),
      p99_ns: inNs(latency?.p99),
      p99_9_ns: latency?.p999 ? inNs(latency.p999) : null,
      max_ns: inNs(latency?.max),
    });
    const offset = Math.abs(clockOffsetMs ?? 0) < 1 ? "within 1 ms" : `${change(clockOffsetMs, 0)} ms`;
    setText(
      this._link,
      `Round trip ${ms(roundTripMs)}, engine's clock to this one: ${offset}. Whole milliseconds, corrected by that offset.`,
    );
  }

  _showLinks() {
    const admin = session.engine?.admin;
    if (this._admin === admin && this._links.firstChild) return;
    this._admin = admin;
    const link = (path, text) =>
      h("a", { class: "button", href: admin + path, target: "_blank", rel: "noopener" }, icon("link"), text);
    this._links.replaceChildren(
      ...(admin
        ? [link("/v1/latency/report", "Report"), link("/v1/latency/log", "Log")]
        : [
            h("span", { class: "muted", text: "Report, on the engine's machine:" }),
            h("code", { text: "marketfeed report var/latency.hlog --html latency.html" }),
          ]),
    );
  }
}

function ageText(age) {
  if (!age || !age.mean_ns) return "";
  return `mean age ${ns(age.mean_ns)}: ${ns(age.deliberate_ns)} by the tier's interval, ${ns(age.ours_ns)} by the engine`;
}
