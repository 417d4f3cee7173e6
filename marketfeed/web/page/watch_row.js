/* One visible row of the watch grid. It writes a cell only if what it shows has changed. */
import { h, setAttribute, setText } from "./dom.js";
import { age, change, figure, price, size } from "./format.js";
import { Sparkline } from "./spark.js";
import { explain, LIVE, CROSSED, QUIET, STATUS, statusOf } from "./status.js";

const HOLD_MS = 400; // a flash lasts so long at least: no cell changes colour more than 2.5 times a second
const CALM_MS = 1200; // a price that stood for so long flashes; one that moves all the time is only coloured
export const MOST_DIGITS = 6; // decimals that all prices are aligned to
const SPARK_MS = 250;
const AGE_MS = 250;

/** Columns: class, header, its explanation, and the key that sorts by it. */
export const COLUMNS = [
  { id: "symbol", label: "Symbol", sort: "symbol", title: "Sort by symbol" },
  { id: "status", label: "Status", title: "Whether the row's data is live, and if not, why" },
  { id: "bsize", label: "Bid size" },
  { id: "bid", label: "Bid" },
  { id: "ask", label: "Ask" },
  { id: "asize", label: "Ask size" },
  { id: "last", label: "Last" },
  {
    id: "move",
    label: "1 min %",
    sort: "move",
    title: "Change of the mid price over the last minute, in percent",
  },
  { id: "spark", label: "Last minute" },
  {
    id: "spread",
    label: "Spread bp",
    sort: "spread",
    title: "Ask minus bid, in basis points of the mid price",
  },
  {
    id: "rate",
    label: "Ticks/s",
    sort: "activity",
    title: "Ticks a second at the engine over the last 10 s, conflated ones included",
  },
  { id: "age", label: "Age", sort: "age", title: "Time since the newest tick, by the engine's clock" },
];

/** A price that flashes when it changes. */
class PriceCell {
  constructor(id) {
    this.element = h("div", { class: `cell num price c-${id}`, role: "gridcell" });
    this._value = NaN;
    this._digits = -1;
    this._until = 0;
  }

  reset() {
    const { dataset } = this.element;
    this._digits = -1;
    this._until = 0; // when the colour ends, and the flash; 0: there is none
    this._flashed = 0;
    this._changed = -Infinity;
    delete dataset.flash;
    delete dataset.hot;
    delete dataset.dir;
  }

  paint(value, digits, now) {
    if (this._until && now >= this._until) this._calm();
    if (this._flashed && now >= this._flashed) this._unflash();
    const before = this._value;
    if (value === before && digits === this._digits) return;
    if (value !== value && before !== before && this._digits >= 0) return;
    const direction = this._digits < 0 ? "" : value > before ? "up" : value < before ? "down" : "";
    if (direction) this._move(direction, now);
    this._value = value;
    this._digits = digits;
    setText(this.element, price(value, digits));
  }

  /** Show a direction, unless the other one is still shown. */
  _move(direction, now) {
    const { dataset } = this.element;
    const calm = now - this._changed > CALM_MS;
    this._changed = now;
    if (this._until && dataset.dir !== direction) return;
    if (dataset.dir !== direction) dataset.dir = direction;
    if (dataset.hot !== direction) dataset.hot = direction;
    this._until = now + HOLD_MS;
    if (!calm) return;
    dataset.flash = direction;
    this._flashed = this._until;
  }

  _calm() {
    this._until = 0;
    delete this.element.dataset.hot;
  }

  _unflash() {
    this._flashed = 0;
    delete this.element.dataset.flash;
  }
}

export class WatchRow {
  /** `source` has `book` and `conditions`; its book changes when another person signs in. */
  constructor(id, source) {
    this._source = source;
    this._conditions = source.conditions;
    const cell = (name) => h("div", { class: `cell num c-${name}`, role: "gridcell" });
    this._symbol = h("div", { class: "cell c-symbol", role: "rowheader" });
    this._status = h("div", { class: "cell c-status", role: "gridcell" });
    this._bid = new PriceCell("bid");
    this._ask = new PriceCell("ask");
    this._last = new PriceCell("last");
    this._bsize = cell("bsize");
    this._asize = cell("asize");
    this._move = cell("move");
    this._spread = cell("spread");
    this._rate = cell("rate");
    this._age = cell("age");
    const canvas = h("canvas", { class: "spark", "aria-hidden": "true" });
    this._spark = new Sparkline(canvas);
    this.element = h(
      "div",
      { class: "row", role: "row", id, "aria-selected": "false" },
      this._symbol,
      this._status,
      this._bsize,
      this._bid.element,
      this._ask.element,
      this._asize,
      this._last.element,
      this._move,
      h("div", { class: "cell c-spark", role: "gridcell" }, canvas),
      this._spread,
      this._rate,
      this._age,
    );
  }

  get _book() {
    return this._source.book;
  }

  bind(row) {
    setText(this._symbol, this._book.names[row]);
    this._symbol.title = this._book.names[row];
    this._version = -1;
    this._shown = -1;
    this._aged = 0;
    this._second = -1;
    this._drawn = 0;
    this._pad = -1;
    this._bid.reset();
    this._ask.reset();
    this._last.reset();
    this._spark.resized();
  }

  paint(row, now) {
    const { _book: book } = this;
    const version = book.version[row];
    const changed = version !== this._version;
    const status = statusOf(book, row, this._conditions);
    const fresh = status !== this._shown;
    if (fresh) this._showStatus(row, status);
    this._paintPrices(row, now);
    if (changed) {
      this._version = version;
      setText(this._bsize, size(book.bidSize[row]));
      setText(this._asize, size(book.askSize[row]));
      setText(this._spread, figure(book.spread(row)));
    }
    const second = book.elapsed;
    if (second !== this._second) {
      this._second = second;
      setText(this._rate, figure(book.rate[row]));
      this._paintMove(row);
    }
    if (now - this._aged > AGE_MS) {
      this._aged = now;
      setText(this._age, age(book.seen[row] ? Math.max(0, this._conditions.now - book.seen[row]) : NaN));
    }
    if ((changed || second !== this._sparked || fresh) && now - this._drawn > SPARK_MS) {
      this._drawn = now;
      this._sparked = second;
      this._spark.draw(book, row, status <= QUIET);
    }
  }

  _paintPrices(row, now) {
    const { _book: book } = this;
    const digits = book.digits[row];
    const pad = Math.min(book.maxDigits, MOST_DIGITS) - digits;
    if (pad !== this._pad) {
      this._pad = pad;
      this.element.style.setProperty("--pad", Math.max(0, pad));
    }
    this._bid.paint(book.bid[row], digits, now);
    this._ask.paint(book.ask[row], digits, now);
    this._last.paint(book.last[row], digits, now);
  }

  _paintMove(row) {
    const move = this._book.move(row);
    const text = change(move);
    setText(this._move, text);
    setAttribute(
      this._move,
      "data-dir",
      text[0] === "+" ? "up" : move < 0 && text[0] !== "0" ? "down" : null,
    );
  }

  _showStatus(row, status) {
    this._shown = status;
    const { word, tone } = STATUS[status];
    setText(this._status, word);
    this._status.title = explain(status, this._book, row, this._conditions);
    this.element.dataset.tone = tone;
    if (status === LIVE || status === CROSSED) delete this.element.dataset.old;
    else this.element.dataset.old = "";
  }
}
