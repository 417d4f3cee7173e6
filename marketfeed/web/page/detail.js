/* The details of one symbol: its quote, chart, last ticks and trades. */
import { h, icon, setAttribute, setText } from "./dom.js";
import { Chart } from "./chart.js";
import { age, change, count, figure, ms, price, size } from "./format.js";
import { History, STEP_MS } from "./history.js";
import { onPaint } from "./paint.js";
import { session } from "./session.js";
import { explain, statusOf, STATUS } from "./status.js";
import { TickLists } from "./tick_lists.js";

const RANGES = [
  ["1 min", 60],
  ["5 min", 300],
];

export class Detail {
  /** `close()` is called when the person closes the panel. */
  constructor(close) {
    this._close = close;
    this._row = -1;
    this._lists = new TickLists();
    this._seconds = 60;
    this._facts = new Map();
    this._chart = new Chart();
    this.element = h(
      "section",
      {
        class: "detail",
        id: "detail",
        "aria-labelledby": "detail-name",
        on: { keydown: (event) => this._key(event) },
      },
      this._top(),
      this._sides(),
      this._factList(),
      this._chartBox(),
      this._lists.element,
    );
  }

  _top() {
    this._name = h("h2", { id: "detail-name", tabindex: "-1" });
    this._state = h("span", { class: "detail-state" }, h("i", { class: "dot" }), h("span"));
    const close = h(
      "button",
      {
        type: "button",
        class: "icon-button",
        "aria-label": "Close details",
        title: "Close (Esc)",
        on: { click: () => this._close() },
      },
      icon("close"),
    );
    return h("header", { class: "detail-top" }, this._name, this._state, close);
  }

  _sides() {
    const side = (label) => {
      const value = h("span", { class: "side-price num" });
      const amount = h("span", { class: "side-size num muted" });
      return {
        value,
        amount,
        element: h("div", { class: "side" }, h("span", { class: "label", text: label }), value, amount),
      };
    };
    [this._bid, this._ask, this._last] = ["Bid", "Ask", "Last trade"].map(side);
    return h("div", { class: "sides" }, this._bid.element, this._ask.element, this._last.element);
  }

  _factList() {
    const names = ["Spread", "1 min move", "Ticks/s", "Age", "Feed", "Receipt to page", "Quotes", "Trades"];
    const list = h("dl", { class: "facts" });
    for (const name of names) {
      const value = h("dd", { class: "num" });
      this._facts.set(name, value);
      list.append(h("div", {}, h("dt", { text: name }), value));
    }
    return list;
  }

  _chartBox() {
    const ranges = RANGES.map(([label, seconds]) =>
      h("button", {
        type: "button",
        class: "chip",
        "aria-pressed": seconds === this._seconds,
        text: label,
        on: { click: (event) => this._range(event.currentTarget, seconds) },
      }),
    );
    this._ranges = h("div", { class: "chips", role: "group", "aria-label": "Range of the chart" }, ...ranges);
    return h(
      "div",
      { class: "chart-box" },
      h("div", { class: "chart-bar" }, this._ranges, this._chart.readout),
      this._chart.element,
    );
  }

  _range(button, seconds) {
    this._seconds = seconds;
    for (const one of this._ranges.children) one.setAttribute("aria-pressed", one === button);
    this._drawn = -1;
  }

  _key(event) {
    if (event.key === "Escape") this._close();
  }

  /** Show the symbol of `row`. */
  open(row) {
    this.shut();
    const { book, feed } = session;
    this._row = row;
    this._history = new History();
    this._history.begin(book, row);
    this._lists.begin(this._history);
    this._drawn = -1;
    this._chart.clear();
    setText(this._name, book.names[row]);
    this._end = [
      session.tap(row, (message) => this._history.take(message)),
      onPaint((now) => this._paint(now)),
    ];
    this._abort = new AbortController();
    this._backfill(row, feed);
  }

  async _backfill(row, feed) {
    const { book } = session;
    const tier = session.tiers.find((one) => one.delivery === "every") ?? session.tiers[0];
    if (!feed || !tier) return;
    const all = book.totalRate();
    try {
      await this._history.backfill(
        book.names[row],
        feed.cursor,
        tier.tier,
        { all, own: book.rate[row] },
        this._abort.signal,
      );
    } catch {
      /* the lists begin with what comes now */
    }
    this._drawn = -1;
  }

  /** Stop following the symbol. */
  shut() {
    for (const end of this._end ?? []) end();
    this._end = null;
    this._abort?.abort();
    this._row = -1;
  }

  focus() {
    this._name.focus();
  }

  recolour() {
    this._chart.clear();
    this._drawn = -1;
  }

  _paint(now) {
    const { book } = session;
    const row = this._row;
    if (row < 0) return;
    const digits = book.digits[row];
    setText(this._bid.value, price(book.bid[row], digits));
    setText(this._ask.value, price(book.ask[row], digits));
    setText(this._last.value, price(book.last[row], digits));
    if (now - (this._slowly ?? 0) < STEP_MS) return;
    this._slowly = now;
    this._paintFacts(row, digits);
    this._lists.paint(digits);
    const step = Math.floor(book.now() / STEP_MS);
    if (step === this._drawn) return;
    this._drawn = step;
    this._chart.digits = digits;
    this._chart.draw(this._history.columns(book.now(), this._seconds), book.names[row]);
  }

  _paintFacts(row, digits) {
    const { book, conditions } = session;
    const status = statusOf(book, row, conditions);
    const move = book.move(row);
    setAttribute(this._state, "data-tone", STATUS[status].tone);
    setText(this._state.lastChild, STATUS[status].word);
    this._state.title = explain(status, book, row, conditions);
    setText(this._bid.amount, size(book.bidSize[row]));
    setText(this._ask.amount, size(book.askSize[row]));
    setText(this._last.amount, `${size(book.lastSize[row])}${["", " bought", " sold"][book.side[row]]}`);
    const spread = book.spread(row);
    const facts = {
      Spread: Number.isNaN(spread)
        ? "–"
        : `${price(book.ask[row] - book.bid[row], digits)}   ${figure(spread)} bp`,
      "1 min move": Number.isNaN(move) ? "–" : `${change(move)} %`,
      "Ticks/s": figure(book.rate[row]),
      Age: age(book.seen[row] ? Math.max(0, conditions.now - book.seen[row]) : NaN),
      Feed: book.feeds[book.feed[row]] || "–",
      "Receipt to page": delayText(book, row),
      Quotes: count(book.quotes[row]),
      Trades: count(book.trades[row]),
    };
    for (const [name, text] of Object.entries(facts)) setText(this._facts.get(name), text);
  }
}

/** This machine's clock has whole milliseconds. */
function delayText(book, row) {
  if (book.seen[row] === 0) return "–";
  return book.delay[row] < 1 ? "<1 ms" : ms(book.delay[row]);
}
