/* What has happened to the stream, and the proof that nothing was missed over a cut. */
import { session } from "./session.js";
import { count } from "./format.js";

const KEPT = 100;

/** Counts, per channel and symbol, from a cut on: the proof compares `n` before it with the first one after it. */
export class Cut {
  constructor(book) {
    this.at = Date.now();
    this.resumedAt = 0;
    this.quotes = book.quotes.slice(0, book.count);
    this.trades = book.trades.slice(0, book.count);
    this.row = busiest(book);
    this.name = book.names[this.row] ?? "";
    this.before = this.quotes[this.row] ?? 0;
    this.after = 0;
    this.missed = 0; // ticks that came after the cut and were sent before the resume
    this.symbols = 0; // whose next number has been seen
    this._holes = book.holes;
    this._resets = session.statistics?.resets ?? 0;
    this._ticks = book.ticks;
    this.end = null;
  }

  /** Look at the book again. */
  update(book) {
    this.holes = book.holes - this._holes;
    this.resets = (session.statistics?.resets ?? 0) - this._resets;
    this.ticks = book.ticks - this._ticks;
    let symbols = 0;
    for (let row = 0; row < this.quotes.length; row += 1) {
      if (book.quotes[row] > this.quotes[row] || book.trades[row] > this.trades[row]) symbols += 1;
    }
    this.symbols = symbols;
  }
}

function busiest(book) {
  let best = 0;
  for (let row = 1; row < book.count; row += 1) if (book.rate[row] > book.rate[best]) best = row;
  return best;
}

class Journal {
  constructor() {
    this.entries = []; // {at, text, tone}, the newest first
    this.version = 0;
    this.sessionId = null;
    this.cut = null;
    session.on("feed", (feed) => feed && this._follow(feed));
  }

  _follow(feed) {
    this.sessionId = null;
    feed.on("state", (state) => this._state(state));
    feed.on("transport", ({ name, why }) => this.note(`transport ${name}: ${why}`));
    feed.on("source", ({ state }) =>
      this.note(`source ${state}`, state === "stale" ? "bad" : null),
    );
    feed.on("tier", (change) => this.note(tierText(change)));
    feed.on("resumed", ({ cursor }) => this._resumed(cursor));
    feed.on("reset", ({ symbols, cause }) =>
      this.note(
        `reset of ${symbols?.length === 1 ? symbols[0] : `${count(symbols?.length ?? 0)} names`}: ${cause}`,
        "warn",
      ),
    );
    feed.on("gap", ({ S, lost, channel }) => this.note(`gap: ${count(lost)} ${channel} of ${S}`, "warn"));
    feed.on("lag", ({ on, conflated }) =>
      this.note(
        on ? "lag begins" : `lag ends: ${count(conflated ?? 0)} quotes conflated`,
        on ? "warn" : null,
      ),
    );
    feed.on("error", ({ code, msg }) => this.note(`refused: ${msg} (${code})`, "bad"));
    feed.on("success", (message) => {
      if (message.session) this.sessionId = message.session;
    });
  }

  _state({ state, code, reason }) {
    const why = [code || "", reason].filter(Boolean).join(", ");
    this.note(why ? `${state}: ${why}` : state, state === "disconnected" ? "bad" : null);
  }

  _resumed(cursor) {
    this.note(cursor ? `resumed after ${cursor}` : "resumed from a snapshot");
    if (this.cut && !this.cut.resumedAt) this.cut.resumedAt = Date.now();
  }

  note(text, tone = null) {
    const [last] = this.entries;
    if (last && last.text === text) last.times += 1;
    else this.entries.unshift({ at: Date.now(), text, tone, times: 1 });
    if (this.entries.length > KEPT) this.entries.pop();
    this.version += 1;
  }

  /** Cut the connection, and count from here. */
  pull() {
    const cut = new Cut(session.book);
    this.cut = cut;
    const end = session.tap(cut.row, (message) => {
      if (message.T !== "q" || message.snap || cut.after || message.n <= cut.before) return;
      cut.after = message.n;
      end();
    });
    this.note("plug pulled", "warn");
    session.feed.cut();
  }
}

function tierText(change) {
  if (typeof change === "string") return `tier ${change}`;
  const why = { hidden: ", while the tab is hidden", weak: ", while the link is weak" }[change.why] ?? "";
  return `tier ${change.tier}${why}`;
}

export const journal = new Journal();
