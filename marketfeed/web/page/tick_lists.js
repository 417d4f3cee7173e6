/* The last quotes and trades of a symbol, in two tabs; they can be paused to be read. */
import { h, icon, setAttribute, setText } from "./dom.js";
import { clock, count, price, size } from "./format.js";
import { session } from "./session.js";

const ROWS = 18;

export class TickLists {
  constructor() {
    this._tab = "quotes";
    this._build();
  }

  /** Follow `history` from now on. */
  begin(history) {
    this._history = history;
    this._paused = true;
    this._togglePause();
    this._choose(this._tab);
  }

  _build() {
    const tab = (id, text) =>
      h(
        "button",
        {
          type: "button",
          class: "tab",
          role: "tab",
          id: `tab-${id}`,
          "aria-controls": "ticks",
          on: { click: () => this._choose(id) },
        },
        text,
      );
    this._tabs = { quotes: tab("quotes", "Quotes"), trades: tab("trades", "Trades") };
    this._pause = h(
      "button",
      {
        type: "button",
        class: "quiet pause",
        "aria-pressed": "false",
        on: { click: () => this._togglePause() },
      },
      icon("pause"),
      "Pause",
    );
    this._table = h("table", { class: "ticks num" });
    const tabs = h(
      "div",
      {
        class: "tab-list",
        role: "tablist",
        "aria-label": "Last ticks",
        on: { keydown: (event) => this._tabKey(event) },
      },
      this._tabs.quotes,
      this._tabs.trades,
    );
    const panel = h(
      "div",
      { id: "ticks", role: "tabpanel", tabindex: "0", class: "ticks-panel" },
      this._table,
    );
    this._panel = panel;
    this.element = h(
      "div",
      { class: "tick-lists" },
      h("div", { class: "tick-bar" }, tabs, this._pause),
      panel,
    );
  }

  _tabKey(event) {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = this._tab === "quotes" ? "trades" : "quotes";
    this._choose(other);
    this._tabs[other].focus();
  }

  _choose(tab) {
    this._tab = tab;
    for (const [id, button] of Object.entries(this._tabs)) {
      button.setAttribute("aria-selected", id === tab);
      button.tabIndex = id === tab ? 0 : -1;
    }
    this._panel.setAttribute("aria-labelledby", `tab-${tab}`);
    const heads =
      tab === "quotes"
        ? ["Time", "Bid size", "Bid", "Ask", "Ask size", "n"]
        : ["Time", "Price", "Size", "Side", "Conditions", "n"];
    this._cells = Array.from({ length: ROWS }, () => heads.map(() => h("td", { text: "\u00a0" })));
    this._table.className = `ticks num of-${tab}`;
    this._table.replaceChildren(
      h("caption", { class: "sr", text: `Last ${tab}, the newest first` }),
      h("thead", {}, h("tr", {}, ...heads.map((text) => h("th", { scope: "col", text })))),
      h("tbody", {}, ...this._cells.map((cells) => h("tr", {}, ...cells))),
    );
    this._listed = -1;
  }

  _togglePause() {
    this._paused = !this._paused;
    this._pause.setAttribute("aria-pressed", this._paused);
    this._pause.replaceChildren(icon(this._paused ? "play" : "pause"), this._paused ? "Resume" : "Pause");
  }

  /** Show the newest ticks, unless paused. */
  paint(digits) {
    if (this._paused) return;
    const recent = this._history[this._tab];
    if (this._listed === this._history.version) return;
    this._listed = this._history.version;
    for (let i = 0; i < ROWS; i += 1) {
      const texts = this._tab === "quotes" ? quoteRow(recent, i, digits) : tradeRow(recent, i, digits);
      texts.forEach((text, column) => setText(this._cells[i][column], text));
      if (this._tab === "trades")
        setAttribute(this._cells[i][3], "data-dir", { b: "up", s: "down" }[recent.newest(i)?.d] ?? null);
    }
  }
}

const local = (tick) => clock(tick.r / 1000 - session.book.offsetMs);

/** The number of a tick, and how many before it were not delivered. */
function numbered(tick, before) {
  const holes = before && !tick.snap ? tick.n - before.n - 1 : 0;
  return holes > 0 ? `+${count(holes)}   ${count(tick.n)}` : count(tick.n);
}

const BLANK = Array.from({ length: 6 }, () => "\u00a0");

function quoteRow(recent, index, digits) {
  const tick = recent.newest(index);
  if (!tick) return BLANK;
  const bid = tick.bs > 0 ? price(tick.bp, digits) : "–";
  const ask = tick.as > 0 ? price(tick.ap, digits) : "–";
  return [local(tick), size(tick.bs), bid, ask, size(tick.as), numbered(tick, recent.newest(index + 1))];
}

const SIDES = { b: "bought", s: "sold" };

function tradeRow(recent, index, digits) {
  const tick = recent.newest(index);
  if (!tick) return BLANK;
  const conditions = (tick.c ?? []).join(" ") || "\u00a0";
  return [
    local(tick),
    price(tick.p, digits),
    size(tick.s),
    SIDES[tick.d] ?? "–",
    conditions,
    numbered(tick, recent.newest(index + 1)),
  ];
}
