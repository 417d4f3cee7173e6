/* What is known about every symbol, one typed array per column; row numbers never change.
 *
 * A tick writes some numbers and makes no object, so 20,000 ticks a second leave nothing to collect.
 * Views read it when they paint; nothing here touches the document. Times are ms since the epoch, by
 * the engine's clock. Prices are NaN where there is none: a side is missing if its size is 0.
 */
import { digitsOf } from "./format.js";

export const SECONDS = 60; // of prices kept, one a second
const RATE_S = 10; // window of `rate`

export const FLAG_STALE = 2;
export const FLAG_CROSSED = 4;

const COLUMNS = {
  bid: [Float64Array, NaN],
  ask: [Float64Array, NaN],
  bidSize: [Float64Array, 0],
  askSize: [Float64Array, 0],
  last: [Float64Array, NaN],
  lastSize: [Float64Array, 0],
  mid: [Float64Array, NaN], // of both sides, or the only one
  base: [Float64Array, NaN], // the oldest mid of the last minute
  seen: [Float64Array, 0], // receipt of the newest tick
  venue: [Float64Array, 0], // the venue's time of it; 0: not sent
  first: [Float64Array, 0], // receipt of the symbol's first tick in this epoch, as far as known
  delay: [Float32Array, 0], // from receipt to this page, of the newest live tick
  rate: [Float32Array, 0], // ticks a second at the engine over RATE_S, conflated ones included
  quotes: [Uint32Array, 0],
  trades: [Uint32Array, 0], // `n` of the newest one
  lost: [Uint32Array, 0], // ticks that `gap` told of
  version: [Uint32Array, 0], // changes with every tick
  feed: [Uint16Array, 0], // index into `feeds`; 0: not known
  flags: [Uint8Array, 0],
  digits: [Uint8Array, 2],
  side: [Uint8Array, 0],
};

export class Book {
  constructor(capacity = 1024) {
    this.capacity = 0;
    this.count = 0;
    this.names = [];
    this.rows = new Map();
    this.feeds = [""];
    this.offsetMs = 0; // of the engine's clock to this machine's
    this.slot = 0; // of the current second
    this.elapsed = 0; // seconds that `second` was called for
    this.maxDigits = 2;
    this.widest = 3; // characters of the widest price so far, and of the widest whole part
    this.wholes = 1;
    this.newestMs = 0; // receipt of the newest tick of all
    this.membership = 0; // changes when a symbol joins
    this.ticks = 0;
    this.holes = 0; // numbers that were passed over: conflated, lost, or not
    this.late = 0; // ticks passed over because a newer one was there
    this._grow(capacity);
  }

  _grow(capacity) {
    for (const [name, [Type, empty]] of Object.entries(COLUMNS)) {
      const column = new Type(capacity);
      if (empty !== 0) column.fill(empty, this.capacity);
      if (this.capacity) column.set(this[name]);
      this[name] = column;
    }
    for (const [name, wide] of [
      ["minute", SECONDS],
      ["_counts", RATE_S],
    ]) {
      const ring = new Float64Array(capacity * wide);
      if (name === "minute") ring.fill(NaN, this.capacity * wide);
      if (this.capacity) ring.set(this[name]);
      this[name] = ring;
    }
    this.capacity = capacity;
  }

  /** The row of a symbol, a new one if it was never seen. */
  row(name) {
    const known = this.rows.get(name);
    if (known !== undefined) return known;
    if (this.count === this.capacity) this._grow(2 * this.capacity);
    const row = this.count;
    this.count += 1;
    this.names.push(name);
    this.rows.set(name, row);
    this.membership += 1;
    return row;
  }

  /** The engine's time now. */
  now() {
    return Date.now() + this.offsetMs;
  }

  quote(message) {
    const row = this.row(message.S);
    const number = message.n;
    if (!this._take(row, this.quotes, number, message)) return row;
    const bidSize = message.bs;
    const askSize = message.as;
    const bid = bidSize > 0 ? message.bp : NaN;
    const ask = askSize > 0 ? message.ap : NaN;
    const mid = bidSize > 0 ? (askSize > 0 ? (bid + ask) / 2 : bid) : ask;
    this.bid[row] = bid;
    this.ask[row] = ask;
    this.bidSize[row] = bidSize;
    this.askSize[row] = askSize;
    this.mid[row] = mid;
    this.flags[row] = bid >= ask ? FLAG_CROSSED : 0;
    if (bid === bid) this._fit(row, bid);
    if (ask === ask) this._fit(row, ask);
    this.minute[row * SECONDS + this.slot] = mid;
    return row;
  }

  trade(message) {
    const row = this.row(message.S);
    if (!this._take(row, this.trades, message.n, message)) return row;
    this.last[row] = message.p;
    this.lastSize[row] = message.s;
    this.side[row] = message.d === "b" ? 1 : message.d === "s" ? 2 : 0;
    this._fit(row, message.p);
    return row;
  }

  /** Count a tick in; false if a newer one of its channel is there, as after a broken proxy. */
  _take(row, column, number, message) {
    const before = column[row];
    const snap = message.snap === 1;
    if (!snap && before !== 0 && ((number - before) | 0) <= 0) {
      this.late += 1;
      return false;
    }
    if (!snap && before !== 0) this.holes += (number - before - 1) | 0;
    if (snap || before === 0) this._shift(row, number - before); // else the rate would count what came before
    column[row] = number;
    const received = message.r / 1000;
    if (received > this.newestMs) this.newestMs = received;
    if (received >= this.seen[row]) {
      this.seen[row] = received;
      this.venue[row] = message.t / 1000;
    }
    if (this.first[row] === 0) this.first[row] = received;
    if (!snap) this.delay[row] = Math.max(0, this.now() - received);
    this.version[row] += 1;
    this.ticks += 1;
    return true;
  }

  _shift(row, by) {
    for (let i = row * RATE_S; i < (row + 1) * RATE_S; i += 1) this._counts[i] += by;
  }

  _fit(row, value) {
    const digits = this.digits[row];
    const found = digitsOf(value, digits);
    if (found === digits) return;
    this.digits[row] = found;
    if (found > this.maxDigits) this.maxDigits = found;
  }

  gap(message) {
    this.lost[this.row(message.S)] += message.lost;
  }

  /** Forget the numbering of `names`, or of all symbols: what comes next begins anew. */
  reset(names) {
    const rows = names ? names.map((name) => this.rows.get(name)).filter((row) => row !== undefined) : null;
    const total = rows ? rows.length : this.count;
    for (let i = 0; i < total; i += 1) {
      const row = rows ? rows[i] : i;
      this._shift(row, -(this.quotes[row] + this.trades[row]));
      this.quotes[row] = 0;
      this.trades[row] = 0;
      if (!rows) this.first[row] = 0;
    }
  }

  /** Begin the next second; `steps` of them if the timer was late. */
  second(steps = 1) {
    for (let step = Math.min(steps, SECONDS); step > 0; step -= 1) this._second();
  }

  _second() {
    const { minute, mid, _counts: counts, quotes, trades, rate, base } = this;
    this.elapsed += 1;
    const slot = (this.slot = (this.slot + 1) % SECONDS);
    const at = this.elapsed % RATE_S;
    const span = Math.min(this.elapsed, RATE_S);
    for (let row = 0; row < this.count; row += 1) {
      const total = quotes[row] + trades[row];
      const index = row * RATE_S + at;
      rate[row] = Math.max(0, total - counts[index]) / span;
      counts[index] = total;
      minute[row * SECONDS + slot] = mid[row];
      if (mid[row] === mid[row]) this._measure(row);
      let oldest = (slot + 1) % SECONDS;
      while (oldest !== slot && Number.isNaN(minute[row * SECONDS + oldest])) oldest = (oldest + 1) % SECONDS;
      base[row] = minute[row * SECONDS + oldest];
    }
  }

  /** Note how wide a symbol's prices are, so that columns have room before they need it. */
  _measure(row) {
    const size = Math.abs(this.mid[row]);
    const wholes = (size < 10 ? 1 : Math.floor(Math.log10(size)) + 1) + (this.mid[row] < 0 ? 1 : 0);
    if (wholes > this.wholes) this.wholes = wholes;
    const width = wholes + 1 + this.digits[row];
    if (width > this.widest) this.widest = width;
  }

  /** Change of the mid over the last minute, in percent; NaN if there is none. */
  move(row) {
    const base = this.base[row];
    return base === 0 ? NaN : (this.mid[row] / base - 1) * 100 * Math.sign(base);
  }

  /** Ask minus bid, in basis points of the mid; NaN without two sides. */
  spread(row) {
    const mid = Math.abs(this.mid[row]);
    return mid === 0 ? NaN : ((this.ask[row] - this.bid[row]) / mid) * 1e4;
  }

  /** Ticks a second of all symbols together. */
  totalRate() {
    let sum = 0;
    for (let row = 0; row < this.count; row += 1) sum += this.rate[row];
    return sum;
  }

  /** Index of a feed's name in `feeds`. */
  feedIndex(name) {
    const found = this.feeds.indexOf(name);
    return found < 0 ? this.feeds.push(name) - 1 : found;
  }

  /** Take what `/v1/symbols` lists: symbols without a tick too, their feeds, flags and first times. */
  list(symbols) {
    for (const one of symbols) {
      const row = this.row(one.S);
      if (one.feed !== undefined) this.feed[row] = this.feedIndex(one.feed);
      if (one.first) this.first[row] = one.first / 1000;
      this.flags[row] = (this.flags[row] & ~FLAG_STALE) | ((one.flags ?? 0) & FLAG_STALE);
    }
  }
}
