/* The last ticks of one symbol: the newest of each channel for the lists, and a price per step for the chart.
 *
 * Both have a fixed size. When a symbol is chosen, what the engine's rings still hold is read once by a poll that
 * resumes from an earlier position, so that lists and chart do not begin empty.
 */
import { SECONDS } from "./book.js";
import { api } from "./engine.js";

export const KEPT = 64; // ticks of a channel in the lists
export const STEP_MS = 250;
const STEPS = 1200; // of the chart: 5 minutes
const WANTED = 900; // ticks that a poll may bring; a ring holds 1,024
const MOST_S = 300;

export class History {
  constructor() {
    this.quotes = new Recent();
    this.trades = new Recent();
    this.steps = new Float64Array(STEPS); // which step an entry is of
    this.bid = new Float64Array(STEPS);
    this.ask = new Float64Array(STEPS);
    this.bought = new Float64Array(STEPS);
    this.sold = new Float64Array(STEPS);
    this.mid = new Float64Array(STEPS); // of the minute before the symbol was chosen, once a second
    this.version = 0;
  }

  take(message) {
    this.version += 1;
    const at = this._step(message.r / 1000);
    if (message.T === "q") {
      this.quotes.add(message);
      if (at < 0) return;
      this.bid[at] = message.bs > 0 ? message.bp : NaN;
      this.ask[at] = message.as > 0 ? message.ap : NaN;
    } else {
      this.trades.add(message);
      if (at >= 0) (message.d === "s" ? this.sold : this.bought)[at] = message.p;
    }
  }

  /** Index of the entry for a time in ms, cleared if it is of an older step; -1 for what is too old. */
  _step(ms) {
    const step = Math.floor(ms / STEP_MS);
    const at = step % STEPS;
    if (this.steps[at] > step) return -1;
    if (this.steps[at] !== step) {
      this.steps[at] = step;
      this.bid[at] = this.ask[at] = this.bought[at] = this.sold[at] = this.mid[at] = NaN;
    }
    return at;
  }

  /** Begin with the mids of the last minute, which the book has of every symbol. */
  begin(book, row) {
    const last = Math.floor(book.now() / 1000);
    for (let back = SECONDS - 1; back > 0; back -= 1) {
      const mid = book.minute[row * SECONDS + ((book.slot + SECONDS - back) % SECONDS)];
      const at = this._step((last - back) * 1000);
      if (at >= 0) this.mid[at] = mid;
    }
  }

  /** Columns for the chart: times in s, bid, ask, bought, sold, mid, of the last `seconds` before `nowMs`. */
  columns(nowMs, seconds) {
    const last = Math.floor(nowMs / STEP_MS);
    const count = Math.min(STEPS, Math.round((seconds * 1000) / STEP_MS));
    const found = [[], [], [], [], [], []];
    let bid = NaN;
    let ask = NaN;
    for (let step = last - count + 1; step <= last; step += 1) {
      const at = step % STEPS;
      const ours = this.steps[at] === step;
      if (ours && !Number.isNaN(this.bid[at] + this.ask[at])) {
        bid = this.bid[at];
        ask = this.ask[at];
      }
      found[0].push((step * STEP_MS) / 1000);
      found[1].push(value(bid));
      found[2].push(value(ask));
      found[3].push(value(ours ? this.bought[at] : NaN));
      found[4].push(value(ours ? this.sold[at] : NaN));
      found[5].push(value(ours && bid !== bid ? this.mid[at] : NaN));
    }
    return found;
  }

  /** Prepend what the engine still holds of `name`; `rates` are ticks a second of all and of this symbol. */
  async backfill(name, cursor, tier, rates, signal) {
    const found = /^(.*:)(\d+)$/.exec(cursor ?? "");
    if (!found) return;
    const seconds = Math.min(MOST_S, WANTED / Math.max(rates.own, 0.1));
    const from = Math.max(1, Math.floor(Number(found[2]) - rates.all * seconds));
    const symbol = encodeURIComponent(name);
    const query = `quotes=${symbol}&trades=${symbol}&tier=${encodeURIComponent(tier)}&after=${encodeURIComponent(found[1] + from)}&timeout_s=0`;
    const answer = await api(`/v1/poll?${query}`, { signal });
    if (!answer?.messages) return;
    const before = { q: this.quotes.oldest(), t: this.trades.oldest() };
    for (const message of answer.messages.toReversed()) {
      if (!(message.n < before[message.T])) continue;
      (message.T === "q" ? this.quotes : this.trades).addOldest(message);
      this._fill(message);
    }
    this.version += 1;
  }

  /** Take an older tick into the chart where its step has none; called from the newest to the oldest. */
  _fill(message) {
    const at = this._step(message.r / 1000);
    if (at < 0) return;
    if (message.T === "q" && Number.isNaN(this.bid[at] + this.ask[at])) {
      this.bid[at] = message.bs > 0 ? message.bp : NaN;
      this.ask[at] = message.as > 0 ? message.ap : NaN;
    } else if (message.T === "t") {
      const side = message.d === "s" ? this.sold : this.bought;
      if (Number.isNaN(side[at])) side[at] = message.p;
    }
  }
}

const value = (number) => (Number.isNaN(number) ? null : number);

/** The newest KEPT ticks of a channel, as copies: in binary, messages are views of a frame. */
class Recent {
  constructor() {
    this.ticks = [];
    this.start = 0;
    this.total = 0; // ever added
  }

  add(message) {
    const copy = plain(message);
    if (this.ticks.length < KEPT) this.ticks.push(copy);
    else {
      this.ticks[this.start] = copy;
      this.start = (this.start + 1) % KEPT;
    }
    this.total += 1;
  }

  addOldest(message) {
    if (this.ticks.length < KEPT) {
      this.ticks.splice(this.start, 0, plain(message));
      this.total += 1;
    }
  }

  /** The `n` of the oldest tick; Infinity without one. */
  oldest() {
    return this.ticks.length ? this.ticks[this.start].n : Infinity;
  }

  /** The tick that is `back` before the newest; undefined if there is none. */
  newest(back) {
    const { length } = this.ticks;
    return back < length ? this.ticks[(this.start + length - 1 - back) % length] : undefined;
  }
}

function plain({ T, n, r, bp, bs, ap, as, p, s, d, c, snap }) {
  return T === "q" ? { n, r, bp, bs, ap, as, snap } : { n, r, p, s, d, c, snap };
}
