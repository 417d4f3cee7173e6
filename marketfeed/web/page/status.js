/* Whether a row's data is live, and if not, why. The first reason that holds is shown.
 *
 * A grid that stands still without saying so is the worst fault of such a page, so every row
 * has a status at all times, and it is derived when painted: nothing has to be told to change.
 */
import { FLAG_CROSSED, FLAG_STALE } from "./book.js";
import { age } from "./format.js";

export const LIVE = 0;
export const CROSSED = 1;
export const QUIET = 2;
export const DELAYED = 3;
export const RECORDED = 4;
export const HALTED = 5;
export const STALE = 6;
export const WAITING = 7;
export const ENDED = 8;
export const DOWN = 9;
export const OFFLINE = 10;
export const UNHEARD = 11;

/** What is shown: the word, how serious it is (`data-tone`), and what it means. */
export const STATUS = [
  { word: "live", tone: "live", means: "Ticks arrive as usual." },
  { word: "crossed", tone: "warn", means: "Live, and the bid is at or above the ask." },
  { word: "quiet", tone: "idle", means: "No tick for much longer than usual for this symbol." },
  {
    word: "delayed",
    tone: "warn",
    means: "Ticks reach this page late: by the venue, the link, or because the session lags.",
  },
  { word: "recorded", tone: "idle", means: "A recording: the venue's time is more than a day ago." },
  { word: "halted", tone: "warn", means: "The newest quote has neither a bid nor an ask." },
  {
    word: "stale",
    tone: "bad",
    means: "The feed has sent nothing for a while, or marked this price as stale.",
  },
  { word: "no tick", tone: "idle", means: "The symbol is known, and no tick has come yet." },
  { word: "ended", tone: "bad", means: "The feed's source has ended." },
  { word: "feed down", tone: "bad", means: "The feed is down: the price is the last one before that." },
  {
    word: "offline",
    tone: "bad",
    means: "This page is not connected: the price is the last one before that.",
  },
  {
    word: "stale",
    tone: "bad",
    means: "The source of the data is silent, as the engine does not hear it: the price is the last known.",
  },
];

const OF_FEED = { starting: WAITING, stale: STALE, down: DOWN, failed: DOWN, done: ENDED };
const LATE_MS = 2000; // from receipt to this page
const LATE_VENUE_MS = 5000; // from the venue's time to receipt
const DAY_MS = 86400e3;
const QUIET_MS = 15e3; // shorter silences are never `quiet`
const QUIET_TIMES = 20; // the symbol's own average interval
const UNKNOWN_MS = 60e3; // a silence that is `quiet` where no average is known

/** State that all rows share, refreshed once per paint by `session.js`. */
export class Conditions {
  constructor() {
    this.connected = false;
    this.stale = false; // the engine does not hear the source of its ticks
    this.lagging = false;
    this.intervalMs = 0; // the tier's
    this.now = 0;
    this.feeds = []; // by index of the book's feeds: {state, delayed_ms}
    this.only = null; // the engine's only feed, for symbols whose feed is not known
  }
}

/** The status of `row`; `conditions.now` is the engine's time. */
export function statusOf(book, row, conditions) {
  if (!conditions.connected) return OFFLINE;
  if (conditions.stale) return UNHEARD;
  const feed = conditions.feeds[book.feed[row]] ?? conditions.only;
  const number = feed ? OF_FEED[feed.state] : undefined;
  if (book.seen[row] === 0) return number >= ENDED ? number : WAITING;
  if (number !== undefined && number !== WAITING) return number;
  if (book.flags[row] & FLAG_STALE) return STALE;
  if (book.quotes[row] !== 0 && book.bidSize[row] === 0 && book.askSize[row] === 0) return HALTED;
  return timing(book, row, conditions, feed) || (book.flags[row] & FLAG_CROSSED ? CROSSED : LIVE);
}

function timing(book, row, conditions, feed) {
  const venue = book.venue[row];
  const behind = venue > 0 ? book.seen[row] - venue : 0;
  const silent = conditions.now - book.seen[row];
  if (silent > usual(book, row)) return QUIET;
  if (behind > DAY_MS) return RECORDED;
  const late = book.delay[row] > LATE_MS + conditions.intervalMs || behind > LATE_VENUE_MS;
  return late || conditions.lagging || (feed && feed.delayed_ms > LATE_VENUE_MS) ? DELAYED : LIVE;
}

/** A silence, in ms, that is longer than the symbol's usual ones. */
function usual(book, row) {
  const ticks = book.quotes[row] + book.trades[row];
  if (ticks < 3) return UNKNOWN_MS;
  return Math.max(QUIET_MS, (QUIET_TIMES * (book.seen[row] - book.first[row])) / (ticks - 1));
}

/** One line about a row's status, for its title and for screen readers. */
export function explain(status, book, row, conditions) {
  const { word, means } = STATUS[status];
  if (status === LIVE || status === WAITING) return `${word}: ${means}`;
  const silent = Math.max(0, conditions.now - book.seen[row]);
  const feed = book.feeds[book.feed[row]];
  return `${word}: ${means} Last tick ${age(silent)} ago${feed ? `, feed ${feed}` : ""}.`;
}
