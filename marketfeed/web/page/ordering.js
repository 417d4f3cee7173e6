/* Which rows the watch grid shows, and in which order.
 *
 * Sorting packs each row's key and its rank by symbol into one float64, so that the engine's own numeric sort
 * orders 8,000 rows in under a millisecond, without comparator and without objects. Equal keys are in symbol order.
 */
import { LIVE, WAITING, statusOf } from "./status.js";

const RANKS = 65536;
const MOST = 2 ** 36; // of a key: key * RANKS + rank stays exact in a float64

/** The wanted terms of a search: prefixes as `BTC*`, else parts of names; null if there are none. */
export function termsOf(text) {
  const terms = text
    .toUpperCase()
    .split(/[\s,]+/)
    .filter((term) => term && term !== "*");
  return terms.length ? terms : null;
}

/** Whether a name, in capitals, matches one of the terms. */
export function matches(name, terms) {
  return terms.some((term) =>
    term.endsWith("*") ? name.startsWith(term.slice(0, -1)) : name.includes(term),
  );
}

const KEYS = {
  activity: (book, row) => Math.round(book.rate[row] * 100),
  move: (book, row) => Math.round((book.move(row) + 1e4) * 1000),
  spread: (book, row) => Math.round((book.spread(row) + 1e5) * 1000),
  age: (book, row, now) => (book.seen[row] ? Math.max(0, Math.round((now - book.seen[row]) / 100)) : NaN),
};

export class Ordering {
  constructor() {
    this.sort = "activity";
    this.descending = true;
    this.terms = null;
    this.onlyNotLive = false;
    this.order = new Int32Array(0);
    this.length = 0;
    this.notLive = 0;
    this._membership = -1;
    this._byRank = new Int32Array(0);
    this._packed = new Float64Array(0);
    this._upper = [];
  }

  /** Compute `order`, whose first `length` entries are rows. */
  update(book, conditions) {
    this._rank(book);
    const { _packed: packed, terms, descending } = this;
    const key = KEYS[this.sort];
    const now = conditions.now;
    let length = 0;
    let notLive = 0;
    for (let rank = 0; rank < book.count; rank += 1) {
      const row = this._byRank[rank];
      const status = statusOf(book, row, conditions);
      const live = status <= LIVE || status === WAITING;
      if (!live) notLive += 1;
      if (this.onlyNotLive && live) continue;
      if (terms && !matches(this._upper[row], terms)) continue;
      packed[length] = key ? this._pack(key(book, row, now), rank) : descending ? -rank : rank;
      length += 1;
    }
    const sorted = packed.subarray(0, length).sort();
    if (this.order.length < book.count) this.order = new Int32Array(book.capacity);
    for (let i = 0; i < length; i += 1) {
      const value = sorted[i];
      const rank = key ? value - Math.floor(value / RANKS) * RANKS : Math.abs(value);
      this.order[i] = this._byRank[rank];
    }
    this.length = length;
    this.notLive = notLive;
  }

  /** Smaller is earlier; rows without a figure come last in both directions. */
  _pack(value, rank) {
    if (value !== value) return MOST * RANKS + rank;
    const key = Math.max(0, Math.min(MOST / 2, value));
    return (this.descending ? MOST / 2 - key : key) * RANKS + rank;
  }

  _rank(book) {
    if (book.membership === this._membership && this._book === book) return;
    this._membership = book.membership;
    this._book = book;
    const rows = Array.from({ length: book.count }, (_, row) => row);
    rows.sort((a, b) => (book.names[a] < book.names[b] ? -1 : 1));
    this._byRank = Int32Array.from(rows);
    this._packed = new Float64Array(book.count);
    this._upper = book.names.map((name) => name.toUpperCase());
  }
}
