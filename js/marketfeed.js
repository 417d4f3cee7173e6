// Client of a marketfeed engine, for browsers and Node.js 20. One module, no build step, no dependency.
//
//     Feed ──want──► Hub ──union of wants──► Stream ──requests──► transport ◄──► engine
//          ◄─batch──     ◄──────batch───────        ◄─messages──
//
// A Stream is the session with the engine: it knows what is subscribed and up to which cursor, reconnects, and
// chooses transport and tier. A Hub gives one Stream to many Feeds; it runs beside the only Feed, in a
// SharedWorker, or in the tab that holds a lock. A Feed checks the numbers of all ticks (Book: nothing twice, no
// hole untold) and passes messages on to subscriptions.
//
// Types are in types.d.ts; docs/protocol.md describes the messages.

/**
 * @import {Alert, AlertNames, AlertWant, Batch, Call, Channel, Events, Message, Names, Notice, Options, Raw,
 *   RequestOptions, Saved, State, Statistics, Tick, TierInfo, Transport, Want, Wire} from "./types.js"
 */

export const VERSION = "0.1.0";

const CHANNELS = /** @type {const} */ (["quotes", "trades"]);
const WAYS = ["websocket", "events", "poll", "quotes"];
const HANDSHAKE_MS = 5000; // for the first message of a connection
const BEAT_MS = 10000; // between pings; a connection without an answer to one for so long is mute
const SILENCE_MS = 65000; // of events, whose heartbeats come every 20 s
const FAILURES = 2; // of a transport in a row, then the next one
const CLIMB_MS = 60000; // before a better transport is tried again; doubled up to ten minutes
const PACE_MS = 100; // between polls, and before a changed subscription over HTTP
const POLL_S = 25;
const SHORT_POLL_MS = 1000;
const WHOLE = 9e5; // characters of an answer that the engine, which sends at most 1 MiB, has not cut
const WEAK_MS = 1500; // round trip
const BUFFER = 10000; // messages that a loop has not taken; beyond them only the newest per symbol are kept
/** @type {TierInfo[]} */
const TIERS = [
  { tier: "vip", interval_ms: 0, delivery: "every" },
  { tier: "premium", interval_ms: 100, delivery: "latest" },
  { tier: "basic", interval_ms: 500, delivery: "latest" },
];
const AGAIN = Symbol("again"); // the end of a request whose parameters have changed
const node = !("document" in globalThis) && /** @type {any} */ (globalThis).process?.versions?.node;
const clock = () => performance.now();

/** An error of the engine or of the connection; `code` is a close code, an HTTP status, or 0. */
export class FeedError extends Error {
  /** @param {number} code @param {string} reason @param {number} [retryMs] @param {boolean} [final] */
  constructor(code, reason, retryMs, final = code >= 4500 && code < 5000) {
    super(reason);
    this.code = code;
    this.retryMs = retryMs;
    this.final = final;
  }
}

/** @param {string} name */
const isPattern = (name) => name.endsWith("*");

/** Return a function that tells whether one of `names` matches a symbol. @param {Iterable<string>} names */
function matcher(names) {
  const exact = new Set(names);
  const prefixes = [...exact].filter(isPattern).map((name) => name.slice(0, -1));
  return (/** @type {string} */ symbol) =>
    exact.has(symbol) || prefixes.some((prefix) => symbol.startsWith(prefix));
}

// Binary frames: docs/protocol.md#binary. Fields are read when they are asked for.

/** @param {DataView} view @param {number} at */
const unsigned = (view, at) => view.getUint32(at + 4, true) * 4294967296 + view.getUint32(at, true);
/** A price: below 2^53 the division is the only rounding, as in JSON. @param {DataView} view @param {number} at */
const price = (view, at) => (view.getInt32(at + 4, true) * 4294967296 + view.getUint32(at, true)) / 1e9;
/** Nanoseconds as whole µs, in two steps since 2^53 ns are 104 days. @param {DataView} view @param {number} at */
function micros(view, at) {
  const high = view.getUint32(at + 4, true);
  const rest = (high % 1000) * 4294967296 + view.getUint32(at, true);
  return Math.floor(high / 1000) * 4294967296 + Math.floor(rest / 1000);
}

class Record {
  /** @param {DataView} view @param {number} at @param {string} S */
  constructor(view, at, S) {
    this.v = view;
    this.o = at;
    this.S = S;
  }
  get t() {
    return micros(this.v, this.o);
  }
  get r() {
    return micros(this.v, this.o + 8);
  }
  get g() {
    return unsigned(this.v, this.o + 16);
  }
  get n() {
    return this.v.getUint32(this.o + 56, true);
  }
  get snap() {
    return this.v.getUint8(this.o + 63) & 1 || undefined;
  }
  /** Copy the record, so that it does not keep its frame in memory. */
  keep() {
    if (this.v.byteLength > 64) {
      this.v = new DataView(this.v.buffer.slice(this.o, this.o + 64));
      this.o = 0;
    }
  }
}

class QuoteRecord extends Record {
  get T() {
    return "q";
  }
  get bp() {
    return this.bs ? price(this.v, this.o + 24) : null;
  }
  get bs() {
    return this.v.getFloat64(this.o + 40, true);
  }
  get ap() {
    return this.as ? price(this.v, this.o + 32) : null;
  }
  get as() {
    return this.v.getFloat64(this.o + 48, true);
  }
  toJSON() {
    const { T, S, bp, bs, ap, as, t, r, n, g, snap } = this;
    return { T, S, bp, bs, ap, as, t, r, n, g, ...(snap && { snap }) };
  }
}

class TradeRecord extends Record {
  get T() {
    return "t";
  }
  get p() {
    return price(this.v, this.o + 24);
  }
  get s() {
    return this.v.getFloat64(this.o + 40, true);
  }
  get d() {
    return String.fromCharCode(this.v.getUint8(this.o + 48));
  }
  get i() {
    return unsigned(this.v, this.o + 32);
  }
  get c() {
    const codes = [50, 51, 52, 53].map((at) => this.v.getUint8(this.o + at)).filter(Boolean);
    return codes.length ? codes.map((code) => String.fromCharCode(code)) : undefined;
  }
  toJSON() {
    const { T, S, p, s, d, i, c, t, r, n, g, snap } = this;
    return { T, S, p, s, d, i, ...(c && { c }), t, r, n, g, ...(snap && { snap }) };
  }
}

/** Return the messages of whole frames; `names` are symbols by id, and are added to.
 * @param {ArrayBuffer} buffer @param {string[]} names @returns {Wire[]} */
export function decode(buffer, names) {
  const view = new DataView(buffer);
  const messages = [];
  for (let at = 0, end; at < buffer.byteLength; at = end) {
    if (view.getUint8(at) !== 1) throw new FeedError(1002, "frame of another version");
    const kind = view.getUint8(at + 1);
    end = at + 16 + view.getUint32(at + 4, true);
    const json = () => JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, at + 16, end - at - 16)));
    if (kind === 2 || kind === 3) {
      for (let o = at + 16; o < end; o += 64) {
        const name = names[view.getUint16(o + 60, true)];
        if (kind === 2) messages.push(new QuoteRecord(view, o, name));
        else if (!view.getUint8(o + 49)) messages.push(new TradeRecord(view, o, name));
      }
    } else if (kind === 1) {
      for (const [name, id] of Object.entries(json())) names[id] = name;
    } else if (kind === 4) {
      for (const message of json()) messages.push(message);
    } else if (kind === 5) messages.push({ T: "heartbeat", t: micros(view, at + 8) });
  }
  return messages;
}

// What has been received.

/** @typedef {{n: number, tick?: Tick, version: number, sinks: Subscription[]}} Slot n: of the newest tick */
/** @typedef {(message: Wire, slot?: Slot) => void} Emit */

/** The newest tick of each symbol and channel. Drops duplicates, and tells holes that nobody announced. */
export class Book {
  /** @type {globalThis.Record<string, Map<string, Slot>>} */
  slots = { q: new Map(), t: new Map() };
  names = { quotes: /** @type {string[]} */ ([]), trades: /** @type {string[]} */ ([]) };
  tiers = TIERS;
  tier = "";
  every = false; // whether each tick is due
  lagging = false;
  epoch = "";
  renewed = false; // since the last `synced`, the epoch changed
  duplicates = 0;

  /** Take one message of the stream; `emit` gets it, unless it is a duplicate, and what is to be told before.
   * @param {Wire} m @param {Emit} emit */
  take(m, emit) {
    if (m.T === "q" || m.T === "t") return this.tick(m, emit);
    if (m.T === "gap") {
      const slot = this.slots[m.channel?.[0]]?.get(m.S);
      if (slot && (m.n - 1 - slot.n) | 0) {
        if (((m.n - 1 - slot.n) | 0) < 0) return void this.duplicates++;
        slot.n = m.n - 1;
      }
    } else if (m.T === "lag") this.lagging = m.on;
    else if (m.T === "disconnected") this.lagging = false;
    else if (m.T === "synced") this.renewed = false;
    else if (m.T === "engine") this.judge((this.tiers = m.tiers ?? TIERS));
    else if (m.T === "reset") this.forget(m.symbols);
    else if (m.T === "epoch") {
      if (this.epoch && this.epoch !== m.epoch) {
        this.renewed = true;
        const symbols = [...new Set([...this.names.quotes, ...this.names.trades])];
        this.take({ T: "reset", symbols, cause: "epoch" }, emit);
      }
      this.epoch = m.epoch;
    } else if (m.T === "subscription") this.subscribed(m, emit);
    emit(m);
  }

  /** @param {Wire} m @param {Emit} emit */
  tick(m, emit) {
    const slots = this.slots[m.T];
    let slot = slots.get(m.S);
    if (!slot) slots.set(m.S, (slot = { n: m.snap ? m.n - 1 : 0, version: -1, sinks: [] }));
    const step = (m.n - slot.n) | 0; // numbers are modulo 2^32 in binary
    if (step <= 0) return void this.duplicates++;
    if (step > 1 && this.every && !(this.lagging && m.T === "q")) {
      const channel = m.T === "q" ? "quotes" : "trades";
      emit({ T: "gap", S: m.S, channel, lost: step - 1, n: m.n, announced: false });
    }
    slot.n = m.n;
    slot.tick = m;
    emit(m, slot);
  }

  /** @param {Wire} m @param {Emit} emit */
  subscribed(m, emit) {
    this.names = m;
    this.tier = m.tier;
    this.judge(this.tiers, m.conflated);
    for (const channel of CHANNELS) {
      const matches = matcher(m[channel]);
      const slots = this.slots[channel[0]];
      for (const symbol of slots.keys()) if (!matches(symbol)) slots.delete(symbol);
    }
    if (m.reset?.length) {
      if (this.renewed) this.forget(m.reset);
      else this.take({ T: "reset", symbols: m.reset, cause: "overrun" }, emit);
    }
  }

  /** @param {TierInfo[]} tiers @param {unknown} [conflated] */
  judge(tiers, conflated) {
    this.every = !conflated && tiers.find(({ tier }) => tier === this.tier)?.delivery === "every";
  }

  /** @param {string[]} symbols */
  forget(symbols) {
    const matches = matcher(symbols);
    for (const slots of Object.values(this.slots)) {
      for (const symbol of slots.keys()) if (matches(symbol)) slots.delete(symbol);
    }
  }

  /** Return all newest ticks, as a snapshot. */
  snapshot() {
    const all = [...this.slots.q.values(), ...this.slots.t.values()];
    return all.filter(({ tick }) => tick).map(({ tick }) => asSnapshot(tick));
  }

  /** Free the frames of ticks that have been newest for long. */
  sweep() {
    for (const slots of Object.values(this.slots)) {
      for (const { tick } of slots.values()) /** @type {any} */ (tick)?.keep?.();
    }
  }
}

/** @param {any} tick @returns {Wire} */
const asSnapshot = (tick) => ({ ...(tick.toJSON?.() ?? tick), snap: 1 });

/** Latency in µs, in buckets of 2 %. */
export class Histogram {
  counts = new Uint32Array(1024);
  count = 0;
  max = 0;
  /** @param {number} us */
  add(us) {
    this.counts[us < 2 ? 0 : Math.min(1023, Math.round(Math.log2(us) * 32))]++;
    this.count++;
    if (us > this.max) this.max = us;
  }
  /** @param {number} share @returns {number} ms */
  percentile(share) {
    let left = share * this.count;
    const at = this.counts.findIndex((count) => (left -= count) <= 0);
    return this.count ? Math.min(this.max, 2 ** (at / 32)) / 1000 : 0;
  }
}

// HTTP.

/** Requests to the engine with its token. */
class Api {
  /** @param {string} base @param {Options} options */
  constructor(base, options) {
    this.base = base;
    this.options = options;
    this.source = options.token;
    /** @type {string | Promise<string> | undefined} */
    this.held = undefined;
    this.refused = "";
  }

  /** Return the token, "" without one; of a function the last one that was not refused. */
  async token() {
    return (this.held ??= this.obtain());
  }

  async obtain() {
    try {
      const source = this.source;
      const token = typeof source === "function" ? await source(this.refused || undefined) : (source ?? "");
      if (token == null) throw new FeedError(401, "unauthorised", undefined, true);
      if (token && token === this.refused) throw new FeedError(401, "token refused", undefined, true);
      return (this.held = token);
    } catch (error) {
      this.held = undefined;
      throw error instanceof FeedError ? error : new FeedError(0, `token: ${error}`);
    }
  }

  /** Note that the engine refused `token`; return the error of that. @param {string} reason */
  async refuse(reason) {
    const token = await this.held;
    if (!token || typeof this.source !== "function") return new FeedError(401, reason, undefined, true);
    this.refused = token;
    this.held = undefined;
    return new FeedError(401, reason);
  }

  /** Make a request; throws FeedError unless the answer is 2xx or 304.
   * @param {string} path @param {RequestOptions & {headers?: globalThis.Record<string, string>}} [options]
   * @returns {Promise<Response>} */
  async call(path, { method, body, signal, headers } = {}) {
    const token = await this.token();
    const json = body !== undefined;
    const answer = await (this.options.fetch ?? fetch)(this.base + path, {
      method: method ?? (json ? "POST" : "GET"),
      body: json ? JSON.stringify(body) : undefined,
      headers: {
        ...(token && { Authorization: `Bearer ${token}` }),
        ...(json && { "Content-Type": "application/json" }),
        ...(node && { "User-Agent": `marketfeed-js/${VERSION}` }),
        ...headers,
      },
      signal,
      cache: "no-store",
    }).catch((error) => {
      throw signal?.aborted ? signal.reason : new FeedError(0, `${error.cause ?? error}`);
    });
    if (answer.ok || answer.status === 304) return answer;
    const text = await answer.text();
    let reason = text.slice(0, 200) || `HTTP status ${answer.status}`;
    try {
      reason = JSON.parse(text).error.msg;
    } catch {
      // The answer is a proxy's.
    }
    if (answer.status === 401) throw await this.refuse(reason);
    throw new FeedError(answer.status, reason, Number(answer.headers.get("Retry-After")) * 1000 || undefined);
  }

  /** @param {string} path @param {any} [options] */
  async json(path, options) {
    const text = await (await this.call(path, options)).text();
    return text && JSON.parse(text);
  }
}

/** Run `begin`, whose signal aborts after `ms`.
 * @template T @param {(signal: AbortSignal) => Promise<T>} begin @param {number} ms @returns {Promise<T>} */
async function within(begin, ms) {
  const ending = new AbortController();
  const timer = setTimeout(() => ending.abort(new FeedError(0, "no answer")), ms);
  try {
    return await begin(ending.signal);
  } finally {
    clearTimeout(timer);
  }
}

/** Wait, or until `signal` aborts. @param {number} ms @param {AbortSignal} signal */
const sleep = (ms, signal) =>
  new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve(undefined);
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });

// The session with the engine.

/** @typedef {{quotes: Set<string>, trades: Set<string>, cursor?: string}} Part names with a common cursor */
/** @typedef {Part & {held: boolean, covers: globalThis.Record<string, (symbol: string) => boolean>}} Opened */

/** @returns {Part} */
const nothing = () => ({ quotes: new Set(), trades: new Set() });
/** @param {Part} part */
const size = (part) => part.quotes.size + part.trades.size;
/** @param {Part} part */
const lists = ({ quotes, trades }) => ({ quotes: [...quotes], trades: [...trades] });
/** Add the names of `more` to `part`. @param {Part} part @param {Part} more */
const merge = (part, more) => CHANNELS.forEach((c) => more[c].forEach((name) => part[c].add(name)));
/** Everything before the position: one epoch of the engine. @param {string} cursor */
const epochOf = (cursor) => cursor.slice(0, cursor.lastIndexOf(":"));

/** One session with the engine, over all its connections. `sink` gets its messages. */
export class Stream {
  /** @type {Want} */
  want = { quotes: [], trades: [], tiers: [], alerts: [], visible: true };
  live = nothing(); // what is subscribed, up to the cursor
  cursor = ""; // as the engine sent it
  g = 0; // up to which tick it has advanced since
  epoch = "";
  open = /** @type {Map<unknown, Opened>} */ (new Map()); // requests without `synced`, by id
  parts = /** @type {Part[]} */ ([]); // what the last connection did not finish to resume
  refused = nothing();
  badTiers = new Set();
  tiers = TIERS;
  defaultTier = "";
  ids = /** @type {string[]} */ ([]); // symbols of binary frames
  status = /** @type {Map<string, Wire>} */ (new Map()); // the last of each message that tells a state
  told = /** @type {any} */ ({}); // what the connection has been asked for
  way = "";
  why = "first choice";
  at = 0; // in `ways`
  up = false; // a message came on this connection
  proved = false; // and an answer to a request
  down = false; // disconnected has been told
  running = false;
  id = 0;
  failures = 0;
  tries = 0;
  heard = 0;
  pinged = 0;
  beatAt = 0;
  doubt = false;
  weakUntil = -Infinity;
  weakMs = BEAT_MS;
  climbMs = CLIMB_MS;
  climbAt = Infinity;
  informed = -Infinity;
  wake = () => {};
  change = /** @type {any} */ (undefined);
  renewal = /** @type {any} */ (undefined);
  asked = nothing();
  roundTrip = 0;
  link = new AbortController();
  life = new AbortController();

  /** @param {Options} options @param {Api} api @param {(messages: Wire[], raw?: Raw) => void} sink */
  constructor(options, api, sink) {
    this.options = options;
    this.api = api;
    this.sink = sink;
    /** @type {string} */
    this.mode = options.transport ?? "auto";
    this.ways = WAYS.filter((way) => way !== "websocket" || socketOf(options));
    this.beats = setInterval(() => this.beat(), BEAT_MS);
    const { signal } = this.life;
    const changed = () => this.choose("network changed");
    globalThis.addEventListener?.("online", changed, { signal });
    /** @type {any} */ (globalThis.navigator)?.connection?.addEventListener?.("change", changed, { signal });
  }

  close() {
    this.life.abort();
    clearInterval(this.beats);
    clearTimeout(this.renewal);
    clearTimeout(this.change);
    this.end(new FeedError(1000, "closed"));
  }

  /** End the connection; the next one begins after the delay of `error`. @param {FeedError} error */
  end(error) {
    this.link.abort(error);
    this.wake();
  }

  /** Tell a state: to Feeds, and later to those that join. @param {string} T @param {object} fields */
  say(T, fields) {
    const message = { T, ...fields };
    this.status.set(T, message);
    this.sink([message]);
  }

  /** @param {string} state @param {number | null} [retryMs] */
  state(state, code = 0, reason = "", retryMs = null) {
    this.say("state", { state, code, reason, retryMs, since: Date.now() });
  }

  /** Go on where another stream was. @param {Saved} saved */
  restore({ quotes, trades, cursor, epoch }) {
    if (this.cursor || this.up) return;
    this.live = { quotes: new Set(quotes), trades: new Set(trades) };
    this.cursor = cursor;
    this.epoch = epoch;
  }

  // Connections, one after the other.

  async run() {
    if (this.running) return;
    this.running = true;
    for (let end; !this.life.signal.aborted; ) {
      const { signal } = (this.link = new AbortController());
      this.way = this.mode === "auto" ? this.ways[this.at] : this.mode;
      if (end !== AGAIN) {
        this.up = this.proved = false;
        this.closing = undefined;
        this.state("connecting");
        if (clock() - this.informed > CLIMB_MS) this.inform();
      }
      try {
        await TRANSPORTS[this.way](this, signal);
        end = signal.reason;
      } catch (error) {
        end = signal.aborted ? signal.reason : error;
      }
      this.send = undefined;
      this.deadline();
      if (end === AGAIN) continue;
      const delay = await this.ended(end instanceof FeedError ? end : new FeedError(0, `${end}`));
      if (delay === null) break;
      await this.pause(delay);
    }
    this.running = false;
  }

  /** Return the delay before the next connection, null if there is none. @param {FeedError} end */
  async ended(end) {
    for (const part of this.open.values()) if (part.cursor) this.parts.push(part);
    this.open.clear();
    let { code, message, retryMs, final } = end;
    if (this.closing && code !== 1000) {
      ({ code, msg: message } = this.closing);
      retryMs = this.closing.retry_ms ?? retryMs;
      final = new FeedError(code, "").final;
    }
    if (code === 4004) ({ final } = await this.api.refuse(message));
    else if (code >= 400 && code < 409 && code !== 401 && code !== 404) await this.sieve(end, this.asked ?? nothing(), this.cursor);
    if (!this.proved && retryMs === undefined && !final) await this.failed(end);
    const [least, most] = this.options.retryMs ?? [1000, 30000];
    const wait = Math.min(most, least * 2 ** this.tries++) * (0.5 + Math.random() / 2);
    const delay = final || this.life.signal.aborted ? null : Math.round(retryMs ?? wait);
    if (this.up) this.sink([{ T: "disconnected", code, reason: message, retryMs: delay }]);
    this.down ||= this.up;
    this.up = false;
    this.state("disconnected", code, message, delay);
    return delay;
  }

  /** Nothing was answered. If that happens again although the engine can be reached, choose the next transport.
   * @param {FeedError} end */
  async failed({ code, message }) {
    if (this.mode !== "auto" || code === 401) return;
    if (code === 429 || (code >= 500 && code < 600)) this.at = 0; // a busy engine, or none, behind any transport
    else if (++this.failures >= FAILURES && (await this.inform())) {
      this.why = `${this.way}: ${message}`;
      this.at = (this.at + 1) % this.ways.length;
      this.failures = this.tries = 0;
      this.climbAt = clock() + this.climbMs;
    }
  }

  /** @param {number} ms */
  async pause(ms) {
    const { signal } = (this.link = new AbortController());
    await sleep(ms, signal);
  }

  /** End the connection if it brings nothing for `ms`. @param {number} [ms] */
  deadline(ms) {
    clearTimeout(this.timer);
    if (ms) this.timer = setTimeout(() => this.end(new FeedError(0, "no answer")), ms);
  }

  /** Choose the transport again, from the best one. @param {string} why */
  choose(why) {
    if (this.mode === "auto" && this.at) this.use("auto", why);
    else if (this.up) this.ping();
    else this.end(new FeedError(0, why, 0));
  }

  /** @param {string} name */
  use(name, why = name === "auto" ? "first choice" : "forced") {
    this.mode = name;
    this.why = why;
    this.at = this.tries = this.failures = 0;
    this.end(new FeedError(1000, `transport: ${why}`, 0));
    this.run();
  }

  /** The engine answers: the first message of a connection has come. */
  established() {
    if (this.up) return;
    this.up = true;
    this.state("connected");
    this.say("transport", { name: this.way, why: this.why });
    if (this.down) this.sink([{ T: "resumed", cursor: this.position || null }]);
    this.down = false;
  }

  /** The connection works in both directions. */
  prove() {
    this.established();
    this.proved = true;
    this.failures = this.tries = 0;
  }

  /** @param {string} epoch */
  enter(epoch) {
    if (epoch !== this.epoch) this.say("epoch", { epoch });
    this.epoch = epoch;
  }

  /** Fetch tiers and clock of the engine; return whether it answers. */
  async inform() {
    const before = Date.now();
    try {
      const info = await within((signal) => this.api.json("v1/engine", { signal }), HANDSHAKE_MS);
      const now = Date.now();
      this.informed = clock();
      this.roundTrip = now - before;
      this.defaultTier = info.default_tier ?? "";
      const allowed = info.access?.tiers;
      this.tiers = [...(info.tiers ?? TIERS)]
        .filter(({ tier }) => !allowed || allowed.includes(tier))
        .sort((a, b) => a.interval_ms - b.interval_ms || a.delivery.localeCompare(b.delivery));
      this.say("engine", { ...info, at: (before + now) / 2 });
      this.retune();
      return true;
    } catch (error) {
      const { code } = /** @type {FeedError} */ (error);
      return code > 0 && code < 500;
    }
  }

  // Is the connection alive, is the link weak, is there a better transport?

  beat() {
    const now = clock();
    // Timers of hidden tabs are throttled, so that one may run before messages that came long ago.
    const late = now - this.beatAt > 2 * BEAT_MS;
    this.beatAt = now;
    if (this.send) {
      if (this.pinged > this.heard && (!late || this.doubt)) this.end(new FeedError(0, "no answer"));
      else this.ping();
    }
    this.doubt = late;
    this.retune();
    if (this.mode === "auto" && this.at && now > this.climbAt) this.climb();
    if (this.up && now - this.informed > 5 * CLIMB_MS) this.inform();
  }

  ping() {
    this.pinged = clock();
    this.send?.({ action: "ping", t: this.pinged });
  }

  /** Try the transports above the one in use, beside it. */
  async climb() {
    this.climbAt = Infinity;
    this.climbMs = Math.min(2 * this.climbMs, 10 * CLIMB_MS);
    for (let at = 0; at < this.at; at++) {
      if (!(await within((signal) => PROBES[this.ways[at]](this, signal), HANDSHAKE_MS).catch(() => false))) continue;
      this.at = at;
      this.why = "works again";
      this.end(new FeedError(1000, "transport: works again", 0));
    }
    this.climbAt = clock() + this.climbMs;
  }

  /** The link is weak: a slower tier for a while, for longer if it happens again soon. */
  weaken() {
    const strongMs = clock() - this.weakUntil;
    if (strongMs > 0) this.weakMs = strongMs < 10 * CLIMB_MS ? Math.min(2 * this.weakMs, 10 * CLIMB_MS) : BEAT_MS;
    this.weakUntil = clock() + this.weakMs;
    this.retune();
  }

  /** Return the tier to use, and why. */
  tier() {
    const { forced, tiers: asked, visible } = this.want;
    const { slowWhenHidden = true, slowWhenWeak = true } = this.options;
    const tiers = this.tiers.filter(({ tier }) => !this.badTiers.has(tier));
    const rank = (/** @type {string | undefined} */ name) =>
      tiers.findIndex(({ tier }) => tier === (name ?? this.defaultTier));
    const fastest = forced ?? [...asked].sort((a, b) => rank(a) - rank(b))[0];
    const at = rank(fastest);
    const weak = slowWhenWeak && clock() < this.weakUntil;
    const slower = tiers.findLast(({ delivery }, i) => i > at && delivery === "latest");
    if (at >= 0 && slowWhenHidden && !visible && slower) return { tier: slower.tier, why: "hidden" };
    const next = tiers.find(({ delivery }, i) => i > at && delivery === "latest");
    if (at >= 0 && weak && next) return { tier: next.tier, why: "weak" };
    return { tier: this.badTiers.has(fastest) ? undefined : fastest, why: fastest ? "asked" : "default" };
  }

  // Requests.

  /** @param {Want} want */
  wish(want) {
    this.want = want;
    for (const channel of CHANNELS) {
      const wanted = new Set(want[channel]);
      this.refused[channel].forEach((name) => wanted.has(name) || this.refused[channel].delete(name));
    }
    if (this.send) this.sync();
    else this.change ??= setTimeout(() => {
      this.change = undefined;
      if (this.way !== "websocket") this.link.abort(AGAIN);
    }, PACE_MS);
  }

  /** Use another tier if circumstances ask for one. */
  retune() {
    const { tier } = this.tier();
    if (this.up && tier && tier !== this.told.tier) this.wish(this.want);
  }

  /** Return the names that are wanted, and those of them that are not subscribed yet. */
  wanted() {
    const wanted = nothing(), fresh = nothing();
    const parts = [this.live, ...this.open.values()];
    for (const channel of CHANNELS) {
      for (const name of this.want[channel]) {
        if (this.refused[channel].has(name)) continue;
        wanted[channel].add(name);
        if (!parts.some((part) => part[channel].has(name))) fresh[channel].add(name);
      }
    }
    return { wanted, fresh };
  }

  /** Remove from all parts what is not wanted any more, and return it. */
  prune() {
    const { wanted } = this.wanted();
    const gone = nothing();
    for (const part of [this.live, ...this.open.values(), ...this.parts]) {
      for (const channel of CHANNELS) {
        for (const name of part[channel]) {
          if (!wanted[channel].has(name) && part[channel].delete(name)) gone[channel].add(name);
        }
      }
    }
    if (!size(this.live)) this.cursor = "";
    return gone;
  }

  /** Begin on an open WebSocket. @param {any} ws */
  async hello(ws) {
    const { signal } = this.link;
    const token = await this.api.token();
    if (signal.aborted) return;
    this.told = { alerts: { consumer: "", patterns: [] } };
    this.send = (/** @type {object} */ request) => ws.readyState === 1 && ws.send(JSON.stringify(request));
    if (token) this.send({ action: "auth", token, id: "auth" });
    this.prune();
    const parts = [...this.parts, { ...this.live, cursor: this.position }];
    this.parts = [];
    this.live = nothing();
    this.cursor = "";
    for (const part of parts) if (part.cursor && size(part)) this.request(part);
    this.sync();
  }

  /** Make the subscription of the WebSocket what is wanted. */
  sync() {
    if (!this.send) return;
    const gone = this.prune();
    if (size(gone)) this.send({ action: "unsubscribe", ...lists(gone) });
    const { fresh } = this.wanted();
    if (size(fresh)) this.request(fresh);
    const settings = this.settings();
    if (Object.keys(settings).length) this.send({ action: "subscribe", ...settings });
    this.syncAlerts(this.send);
  }

  /** Return what of tier and encoding the connection has not been asked for. */
  settings() {
    const { tier, why } = this.tier();
    const { encoding } = this.options;
    const settings = {
      ...(tier && tier !== this.told.tier && { tier }),
      ...(encoding && encoding !== this.told.encoding && { encoding }),
    };
    Object.assign(this.told, settings, { why });
    return settings;
  }

  /** @param {Part} part */
  request({ quotes, trades, cursor }) {
    const id = ++this.id;
    const covers = { q: matcher(quotes), t: matcher(trades) };
    this.open.set(id, { quotes, trades, cursor, covers, held: false });
    this.send?.({ action: "subscribe", ...lists({ quotes, trades }), after: cursor, ...this.settings(), id });
  }

  /** @param {(request: object) => void} send */
  syncAlerts(send) {
    const { patterns = [], consumer = "", start } = this.want.alerts[0] ?? {};
    const held = this.told.alerts;
    if (held.consumer !== consumer && held.patterns.length) {
      send({ action: "unsubscribe", alerts: held.patterns.splice(0) });
    }
    const gone = held.patterns.filter((/** @type {string} */ name) => !patterns.includes(name));
    if (patterns.some((name) => !held.patterns.includes(name))) {
      send({ action: "subscribe", alerts: patterns, consumer: consumer || undefined, start, id: "alerts" });
    }
    if (gone.length) send({ action: "unsubscribe", alerts: gone });
    this.told.alerts = { consumer, patterns: [...patterns] };
  }

  /** Return the parameters of a request over HTTP, which is for `this.asked`; "" if nothing is wanted.
   * @param {AbortSignal} signal */
  async query(signal) {
    this.prune();
    const { wanted, fresh } = this.wanted();
    if (this.cursor && size(fresh)) await this.prime(fresh, signal);
    this.asked = wanted;
    const { tier, why } = this.tier();
    this.told = { tier, why };
    return size(wanted) ? parameters({ ...wanted, cursor: this.position }, tier) : "";
  }

  /** Fetch the state of names that join a subscription with a cursor. @param {Part} names @param {AbortSignal} signal */
  async prime(names, signal) {
    const { tier } = this.tier();
    for (let cursor, more = true; more; ) {
      const path = `v1/poll?${parameters({ ...names, cursor }, tier)}&timeout_s=0`;
      const text = await (await this.api.call(path, { signal })).text();
      more = text.length > WHOLE;
      if (!cursor) merge(this.live, names);
      this.subscribed(this.live, { partial: 1 });
      if (!text) break;
      const answer = JSON.parse(text);
      cursor = answer.cursor;
      this.receive(answer.messages);
    }
  }

  /** Tell what the engine does not tell on polls. @param {Part} names @param {object} [fields] */
  subscribed(names, fields) {
    const { tier = this.defaultTier } = this.told;
    this.receive([{ T: "subscription", ...lists(names), alerts: [], tier, encoding: "json", ...fields }]);
  }

  // Messages.

  /** @param {Wire[]} messages @param {Raw} [raw] */
  receive(messages, raw) {
    this.heard = clock();
    for (const m of messages) {
      if (m.T === "q" || m.T === "t") this.advance(m);
      else this.handle(m);
    }
    this.sink(messages, raw);
  }

  /** Advance the cursor of a WebSocket; over HTTP the engine sends it. @param {Tick} m */
  advance(m) {
    if (!this.send || m.snap) return;
    const { g } = m;
    for (const part of this.open.values()) {
      if (!part.covers[m.T](m.S)) continue;
      if (part.cursor && !part.held) part.cursor = `${epochOf(part.cursor)}:${g}`;
      return;
    }
    if (g > this.g) this.g = g;
  }

  /** @param {Wire} m */
  handle(m) {
    const part = this.open.get(m.id);
    if (m.T === "success") {
      if (m.msg === "authenticated") this.prove();
      if (m.ttl_s) this.renewal = setTimeout(() => this.authenticate(), Math.max(5, Math.min(m.ttl_s * 0.8, 1e6)) * 1000);
    } else if (m.T === "subscription") {
      this.prove();
      if (part && m.reset?.length) part.held = true;
      if (this.status.get("tier")?.tier !== m.tier) {
        const every = this.tiers.find(({ tier }) => tier === m.tier)?.delivery === "every";
        this.say("tier", { tier: m.tier, why: this.told.why, every });
      }
    } else if (m.T === "synced" && part) {
      this.open.delete(m.id);
      merge(this.live, part);
      this.seek(m.cursor);
    } else if (m.T === "pong") {
      this.prove();
      this.roundTrip = clock() - m.t;
      if (this.roundTrip > WEAK_MS) this.weaken();
    } else if (m.T === "lag" && m.on) this.weaken();
    else if (m.T === "closing") this.closing = m;
    else if (m.T === "error") this.fault(m, part);
  }

  /** @param {string} cursor */
  seek(cursor) {
    this.cursor = cursor;
    this.g = 0;
  }

  /** The cursor of what is subscribed; "" without one. */
  get position() {
    const from = Number(this.cursor.slice(this.cursor.lastIndexOf(":") + 1));
    return this.cursor && this.g > from ? `${epochOf(this.cursor)}:${this.g}` : this.cursor;
  }

  /** The engine refused a request of the WebSocket. @param {Wire} m @param {Opened} [part] */
  async fault({ code, msg, id }, part) {
    if (code > 400 && code < 404) return this.end(await this.api.refuse(msg));
    if (id === "auth" || (part && (code === 429 || code === 500))) return this.end(new FeedError(code, msg, 1000));
    if (!part) return;
    this.open.delete(id);
    await this.sieve(new FeedError(code, msg), part, part.cursor);
    this.sync();
  }

  /** Find out which names the engine refuses, tell them, and do not ask for them again. The others shall not suffer.
   * @param {FeedError} error @param {Part} part @param {string} [cursor] */
  async sieve({ code, message }, part, cursor) {
    if (code === 400 && cursor) return this.sink([{ T: "reset", symbols: Object.values(lists(part)).flat(), cause: "cursor" }]);
    const names = CHANNELS.flatMap((c) => [...part[c]].map((name) => /** @type {[Channel, string]} */ ([c, name])));
    let bad = await this.culprits(names).catch(() => names);
    if (!bad.length && this.told.tier) this.badTiers.add(this.told.tier);
    else if (!bad.length) bad = names;
    const refused = partOf(bad);
    merge(this.refused, refused);
    this.sink([{ T: "error", code, msg: message, ...lists(refused) }]);
  }

  /** Return those of `names` that the engine refuses, by halves. @param {[Channel, string][]} names
   * @returns {Promise<[Channel, string][]>} */
  async culprits(names) {
    if (names.length <= 100) {
      try {
        if (names.length) await this.api.call(`v1/poll?${parameters(partOf(names))}&timeout_s=0`);
        return [];
      } catch (error) {
        const { code } = /** @type {FeedError} */ (error);
        if (!(code >= 400 && code < 410)) throw error;
        if (names.length === 1) return names;
      }
    }
    const half = names.length >> 1;
    return [...(await this.culprits(names.slice(0, half))), ...(await this.culprits(names.slice(half)))];
  }

  /** Present a new token before the present one expires. */
  async authenticate() {
    try {
      this.api.held = undefined;
      const token = await this.api.token();
      this.send?.({ action: "auth", token, id: "auth" });
    } catch (error) {
      if (/** @type {FeedError} */ (error).final) this.end(/** @type {FeedError} */ (error));
      else this.renewal = setTimeout(() => this.authenticate(), BEAT_MS);
    }
  }
}

/** @param {[Channel, string][]} names */
function partOf(names) {
  const part = nothing();
  for (const [channel, name] of names) part[channel].add(name);
  return part;
}

/** Return the query of a subscription. Names that would make it too long for a request line become `*`.
 * @param {Part} part @param {string} [tier] */
function parameters({ quotes, trades, cursor }, tier) {
  const list = (/** @type {Set<string>} */ names) => {
    const text = [...names].map(encodeURIComponent).join();
    return text.length > 2500 ? "*" : text;
  };
  return query({ quotes: list(quotes), trades: list(trades), tier, after: cursor });
}

/** @param {globalThis.Record<string, string | undefined>} fields encoded, but for cursors and tiers, which need not be */
const query = (fields) =>
  Object.entries(fields).filter(([, value]) => value).map(([key, value]) => `${key}=${value}`).join("&");

// Transports: each runs until its connection ends, and throws why.

/** @param {Options} options */
const socketOf = (options) => options.WebSocket ?? globalThis.WebSocket;

/** @param {Stream} s */
function open(s) {
  const url = s.api.base.replace(/^http/, "ws") + "v1/stream";
  // Browsers ignore the third argument.
  const ws = new (socketOf(s.options))(url, [], node && { headers: { "User-Agent": `marketfeed-js/${VERSION}` } });
  ws.binaryType = "arraybuffer";
  ws.onerror = () => {};
  return ws;
}

/** @param {Stream} s @param {AbortSignal} signal @returns {Promise<void>} */
function websocket(s, signal) {
  return new Promise((_, reject) => {
    const ws = open(s);
    s.deadline(HANDSHAKE_MS);
    ws.onmessage = (/** @type {MessageEvent} */ { data }) => {
      try {
        s.deadline();
        const messages = typeof data === "string" ? JSON.parse(data) : decode(data, s.ids);
        if (messages[0]?.msg === "connected") {
          s.established();
          s.enter(messages[0].epoch);
          s.hello(ws).catch((error) => s.end(error));
        }
        s.receive(messages, data);
      } catch (error) {
        if (typeof data !== "string") s.options.encoding = "json"; // of a later version
        s.end(new FeedError(1002, `${error}`));
      }
    };
    ws.onclose = (/** @type {CloseEvent} */ { code, reason }) => reject(new FeedError(code, reason || "connection lost"));
    signal.addEventListener("abort", () => {
      ws.onmessage = ws.onclose = null;
      if (ws.terminate && signal.reason.code !== 1000) ws.terminate();
      else ws.close(1000);
      reject(signal.reason);
    });
  });
}

/** @param {Stream} s @param {AbortSignal} signal */
async function events(s, signal) {
  const { alerts, consumer, start } = alertFields(s.want.alerts[0]);
  const names = await s.query(signal);
  if (!names && !alerts) return idle(s, signal);
  const path = `v1/events?${query({ names, alerts, consumer, start }).replace("names=", "")}`;
  let held = /** @type {[Wire[], string][] | null} */ ([]);
  const { asked } = s;
  /** @param {string} data @param {string} id */
  const take = (data, id) => {
    s.deadline(SILENCE_MS);
    if (!data) return;
    const messages = JSON.parse(data);
    s.prove();
    // The first id tells the epoch; nothing of another one is told before.
    held?.push([messages, data]);
    if (held && !id) return;
    const all = held ?? [[messages, data]];
    if (held) {
      s.enter(epochOf(id));
      s.live = asked;
      held = null;
    }
    for (const [some, raw] of all) s.receive(some, raw);
    if (id) s.seek(id);
  };
  s.deadline(HANDSHAKE_MS);
  if (s.options.EventSource || !globalThis.TextDecoderStream) return source(s, signal, path, take);
  const answer = await s.api.call(path, { signal, headers: { Accept: "text/event-stream" } });
  if (!answer.headers.get("Content-Type")?.startsWith("text/event-stream")) throw new FeedError(0, "no event stream");
  const reader = /** @type {ReadableStream} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) throw new FeedError(1006, "event stream ended");
    text += value;
    if (!value.includes("\n")) continue;
    const blocks = text.split("\n\n");
    text = /** @type {string} */ (blocks.pop());
    for (const block of blocks) {
      const field = (/** @type {string} */ name) => block.match(new RegExp(`^${name}: (.*)`, "m"))?.[1] ?? "";
      take(field("data"), field("id"));
    }
  }
}

/** Events by EventSource, which cannot send a token, but a ticket.
 * @param {Stream} s @param {AbortSignal} signal @param {string} path @param {(data: string, id: string) => void} take */
async function source(s, signal, path, take) {
  const ticket = (await s.api.token()) && (await s.api.json("v1/tickets", { method: "POST", signal })).ticket;
  const events = new (s.options.EventSource ?? EventSource)(`${s.api.base}${path}${ticket && `&ticket=${ticket}`}`);
  try {
    await new Promise((_, reject) => {
      events.onmessage = (/** @type {MessageEvent} */ { data, lastEventId }) => {
        try {
          take(data, lastEventId);
        } catch (error) {
          reject(error);
        }
      };
      events.onerror = () => reject(new FeedError(0, "event stream ended"));
      signal.addEventListener("abort", () => reject(signal.reason));
    });
  } finally {
    events.close();
  }
}

/** @param {AlertWant} [want] */
const alertFields = (want) => ({
  alerts: want?.patterns.map(encodeURIComponent).join(),
  consumer: want?.consumer && encodeURIComponent(want.consumer),
  start: want?.start,
});

/** Wait until something is wanted. @param {Stream} s @param {AbortSignal} signal */
async function idle(s, signal) {
  if (!(await s.inform())) throw new FeedError(0, "no answer");
  s.prove();
  await sleep(2 ** 31 - 1, signal);
}

/** @param {Stream} s @param {AbortSignal} signal */
async function poll(s, signal) {
  alertPolls(s, signal);
  for (let told = "", more = false; !signal.aborted; ) {
    const query = await s.query(signal);
    if (!query) return idle(s, signal);
    const { asked, cursor: after } = s;
    s.deadline(POLL_S * 1000 + HANDSHAKE_MS);
    const answer = await s.api.call(`v1/poll?${query}&timeout_s=${told ? POLL_S : 0}`, { signal });
    const text = await answer.text();
    const cursor = answer.headers.get("X-Cursor") ?? "";
    const { messages = [], resumed, reset } = text ? JSON.parse(text) : {};
    const before = more;
    more = text.length > WHOLE && (!after || more); // of a snapshot
    s.prove();
    s.enter(epochOf(cursor));
    const now = JSON.stringify(lists(asked));
    const news = now !== told || reset?.length;
    if (news) s.subscribed(asked, { resumed, reset, partial: more });
    told = now;
    s.receive(messages);
    if (!more && (news || before)) s.receive([{ T: "synced", cursor }]);
    s.live = asked;
    s.seek(cursor);
    await sleep(PACE_MS, signal);
  }
}

/** @param {Stream} s @param {AbortSignal} signal */
async function quotes(s, signal) {
  alertPolls(s, signal);
  const tags = /** @type {globalThis.Record<string, string>} */ ({});
  for (let told = ""; !signal.aborted; ) {
    const { wanted } = s.wanted();
    if (!size(wanted)) return idle(s, signal);
    const { tier, why } = s.tier();
    s.told = { tier, why };
    s.asked = wanted;
    s.deadline(2 * HANDSHAKE_MS);
    for (const channel of CHANNELS) {
      const symbols = new URLSearchParams(parameters({ ...nothing(), quotes: wanted[channel] })).get("quotes");
      if (!symbols) continue;
      const path = `v1/${channel}?${query({ symbols: encodeURIComponent(symbols), tier })}`;
      const answer = await s.api.call(path, { signal, headers: { "If-None-Match": tags[path] ?? '""' } });
      s.prove();
      if (answer.status === 304) continue;
      tags[path] = answer.headers.get("ETag") ?? "";
      s.enter(tags[path].match(/"([^":]+)/)?.[1] ?? s.epoch);
      if (told !== (told = JSON.stringify(lists(wanted)))) s.subscribed(wanted, { conflated: 1 });
      s.receive(await answer.json());
    }
    await sleep(SHORT_POLL_MS, signal);
  }
}

/** Fetch the alerts of a consumer beside polls of ticks. @param {Stream} s @param {AbortSignal} signal */
async function alertPolls(s, signal) {
  const fields = alertFields(s.want.alerts[0]);
  if (!fields.consumer) return;
  while (!signal.aborted) {
    try {
      const answer = await s.api.json(`v1/alerts?${query({ ...fields, timeout_s: `${POLL_S}` })}`, { signal });
      if (answer) s.receive(answer.alerts);
    } catch {
      await sleep(SHORT_POLL_MS * (1 + Math.random()), signal);
    }
    await sleep(PACE_MS, signal);
  }
}

/** @type {globalThis.Record<string, (s: Stream, signal: AbortSignal) => Promise<void>>} */
const TRANSPORTS = { websocket, events, poll, quotes };

/** Each returns true if its transport would work. @type {globalThis.Record<string, (s: Stream, signal: AbortSignal) => Promise<boolean>>} */
const PROBES = {
  websocket: (s, signal) =>
    new Promise((resolve) => {
      const ws = open(s);
      const done = (/** @type {boolean} */ works) => {
        ws.close();
        resolve(works);
      };
      ws.onmessage = () => done(true);
      ws.onclose = () => resolve(false);
      signal.addEventListener("abort", () => done(false));
    }),
  async events(s, signal) {
    const answer = await s.api.call("v1/events?quotes=~~*", { signal }); // a prefix that nobody uses
    const reader = /** @type {ReadableStream} */ (answer.body).getReader();
    const { done } = await reader.read();
    reader.cancel();
    return !done;
  },
  poll: async (s, signal) => (await s.api.call("v1/poll?quotes=~~*&timeout_s=0", { signal })).ok,
};

// One stream for many feeds.

/** Merges what its Feeds want into one Stream. */
export class Hub {
  clients = /** @type {Map<string, {post: (batch: Batch) => void, want?: Want, quiet?: boolean}>} */ (new Map());
  book = new Book();
  sides = /** @type {Map<string, Stream>} */ (new Map()); // of further consumers: a session has one
  pending = false;
  key = ""; // of the alerts of the main stream

  /** @param {Options} options @param {Api} api @param {boolean} [shared] */
  constructor(options, api, shared) {
    this.options = options;
    this.api = api;
    this.shared = shared;
    this.main = new Stream(options, api, (messages, raw) => this.spread({ messages, raw, key: this.key }));
  }

  /** @param {Batch} batch */
  spread(batch) {
    const { main } = this;
    batch.cursor = main.position;
    if (batch.messages?.some(({ T }) => T === "synced" || T === "subscription")) batch.saved = this.saved();
    if (this.shared) for (const m of batch.messages ?? []) this.book.take(m, () => {});
    for (const client of this.clients.values()) if (!client.quiet) client.post(batch);
  }

  saved() {
    const { live, position: cursor, epoch } = this.main;
    return { ...lists(live), cursor, epoch };
  }

  /** @param {string} id @param {Call} call @param {(batch: Batch) => void} post */
  call(id, { want, saved, cut, use, bye }, post) {
    if (saved?.cursor) this.main.restore(saved);
    if (want) {
      if (!this.clients.has(id)) this.join(id, post);
      /** @type {any} */ (this.clients.get(id)).want = want;
    }
    if (bye) this.clients.delete(id);
    if (want || bye) this.merge();
    if (cut) this.main.end(new FeedError(0, "cut by the program", 0));
    if (use) this.main.use(use);
  }

  /** @param {string} id @param {(batch: Batch) => void} post */
  join(id, post) {
    this.clients.set(id, { post });
    const messages = [...this.main.status.values(), ...this.book.snapshot()];
    if (this.shared) post({ messages, names: this.main.ids, saved: this.saved(), cursor: this.main.position });
  }

  /** Wish the union of what is wanted, once for all changes of this task. */
  merge() {
    if (this.pending) return;
    this.pending = true;
    queueMicrotask(() => {
      this.pending = false;
      const wants = [...this.clients.values()].flatMap(({ want }) => want ?? []);
      const seen = wants.filter(({ visible }) => visible);
      const lead = seen.length ? seen : wants;
      const alerts = /** @type {Map<string, AlertWant>} */ (new Map());
      for (const { consumer, patterns, start } of wants.flatMap((want) => want.alerts)) {
        const all = [...(alerts.get(consumer)?.patterns ?? []), ...patterns];
        alerts.set(consumer, { consumer, patterns: [...new Set(all)], start });
      }
      if (!alerts.has(this.key)) this.key = [...alerts.keys()].find((key) => !this.sides.has(key)) ?? "";
      this.main.wish({
        quotes: [...new Set(wants.flatMap((want) => want.quotes))],
        trades: [...new Set(wants.flatMap((want) => want.trades))],
        tiers: lead.flatMap((want) => want.tiers),
        forced: lead.find((want) => want.forced)?.forced,
        alerts: [...alerts.values()].filter(({ consumer }) => consumer === this.key),
        visible: seen.length > 0,
      });
      this.main.run();
      this.branch(alerts);
    });
  }

  /** Keep a stream for each further consumer. @param {Map<string, AlertWant>} alerts */
  branch(alerts) {
    for (const [key, stream] of this.sides) {
      if (alerts.has(key)) continue;
      stream.close();
      this.sides.delete(key);
    }
    for (const [key, want] of alerts) {
      if (key === this.key) continue;
      let stream = this.sides.get(key);
      if (!stream) {
        stream = new Stream(this.options, this.api, (messages) => {
          const alerts = messages.filter(({ T }) => T === "a" || T === "error");
          if (alerts.length) this.spread({ messages: alerts, key });
        });
        this.sides.set(key, stream);
      }
      stream.wish({ quotes: [], trades: [], tiers: [], alerts: [want], visible: true });
      stream.run();
    }
  }

  close() {
    for (const stream of [this.main, ...this.sides.values()]) stream.close();
  }
}

// Subscriptions.

/** Keep the newest tick of each symbol of a queue, and tell what was dropped. @param {Wire[]} queue */
export function conflate(queue) {
  const lost = /** @type {Map<string, number>} */ (new Map());
  const kept = [];
  for (let i = queue.length - 1; i >= 0; i--) {
    const m = queue[i];
    const type = m.T === "gap" ? m.channel[0] : m.T;
    const key = type + m.S;
    if (type !== "q" && type !== "t") kept.push(m);
    else if (m.T !== "gap" && !lost.has(key)) {
      lost.set(key, 0);
      kept.push(m);
    } else lost.set(key, (lost.get(key) ?? 0) + (m.lost ?? 1));
  }
  return kept.reverse().flatMap((m) => {
    const missing = (m.T === "q" || m.T === "t") && lost.get(m.T + m.S);
    const channel = m.T === "q" ? "quotes" : "trades";
    return missing ? [{ T: "gap", S: m.S, channel, lost: missing, n: m.n, cause: "consumer" }, m] : [m];
  });
}

/** Messages for one component: to its listener, or to a loop over this object.
 * @template {Message} [M=Message] */
class Subscription {
  /** @type {any[]} */
  #queue = [];
  #at = 0;
  #limit = BUFFER;
  #closed = false;
  /** @type {((result: IteratorResult<M>) => void) | undefined} */
  #waiting;
  #listener;
  #leave;

  /** @param {((message: M) => void) | undefined} listener @param {() => void} leave */
  constructor(listener, leave) {
    this.#listener = listener;
    this.#leave = leave;
  }

  /** @internal @param {any} message */
  push(message) {
    if (this.#closed) return;
    if (this.#listener) return guard(this.#listener, message);
    if (this.#waiting) {
      this.#waiting({ value: message, done: false });
      this.#waiting = undefined;
      return;
    }
    this.#queue.push(message);
    if (this.#queue.length - this.#at <= this.#limit) return;
    this.#queue = conflate(this.#queue.slice(this.#at));
    this.#at = 0;
    this.#limit = Math.max(BUFFER, 2 * this.#queue.length);
  }

  /** End it; a loop over it ends. */
  unsubscribe() {
    if (this.#closed) return;
    this.#closed = true;
    this.#waiting?.({ value: undefined, done: true });
    this.#leave();
  }

  /** @returns {AsyncIterator<M>} */
  [Symbol.asyncIterator]() {
    return {
      next: () => {
        if (this.#at < this.#queue.length) {
          const value = this.#queue[this.#at++];
          if (this.#at === this.#queue.length) {
            this.#queue = [];
            this.#at = 0;
          }
          return Promise.resolve({ value, done: false });
        }
        if (this.#closed) return Promise.resolve({ value: undefined, done: true });
        return new Promise((resolve) => (this.#waiting = resolve));
      },
      return: () => {
        this.unsubscribe();
        return Promise.resolve({ value: undefined, done: true });
      },
    };
  }
}

/** Alerts of a consumer, or a live view. @extends {Subscription<Alert>} */
class AlertSubscription extends Subscription {
  #send;
  /** @param {((alert: Alert) => void) | undefined} listener @param {() => void} leave
   * @param {(ids: string[]) => Promise<{alerts: string[], unknown: string[]}>} send */
  constructor(listener, leave, send) {
    super(listener, leave);
    this.#send = send;
  }

  /** Acknowledge alerts; resolves when that is on the engine's disk. Repeated until then.
   * @param {string | string[]} ids */
  ack(ids) {
    return this.#send([ids].flat());
  }
}

/** Call a listener, whose exception is its own. @param {(value: any) => void} listener @param {unknown} value */
function guard(listener, value) {
  try {
    listener(value);
  } catch (error) {
    console.error(error);
  }
}

/** What a program holds: subscriptions, the newest ticks, events. Made by {@link connect}. */
class Feed {
  #options;
  #api;
  #link;
  #book = new Book();
  #subscriptions = /** @type {Set<Subscription<any>>} */ (new Set());
  #alerts = /** @type {Map<Subscription<any>, AlertWant>} */ (new Map());
  /** By name, who asked for it. @type {globalThis.Record<string, Map<string, Map<Subscription<any>, string | undefined>>>} */
  #names = { q: new Map(), t: new Map() };
  #version = 0; // of #names
  #listeners = /** @type {Map<string, Set<(value: any) => void>>} */ (new Map());
  #forced = /** @type {string | undefined} */ (undefined);
  #pending = false;
  #ids = /** @type {string[]} */ ([]);
  #saved = /** @type {Saved | undefined} */ (undefined);
  #now = 0; // when the batch came, µs of clock()
  #delta = -Infinity; // the engine's clock minus clock(), µs
  #settled = false; // ticks are as old as their way is long
  #latency = new Histogram();
  #figures = { quotes: 0, trades: 0, messages: 0, bytes: 0, gaps: 0, lost: 0, lags: 0, resets: 0, reconnects: 0 };
  #roundTrip = /** @type {number | null} */ (null);
  #life = new AbortController();
  #sweeper;

  /** @type {State} */
  state = { state: "connecting", code: 0, reason: "", retryMs: null, since: Date.now() };
  /** @type {Transport} */
  transport = { name: "", why: "" };
  /** The tier of the session. */
  tier = "";
  /** The encoding of the session. */
  encoding = "json";
  /** Up to where everything has been received; null before the first snapshot. @type {string | null} */
  cursor = null;

  /** @param {string} base @param {Options} options */
  constructor(base, options) {
    this.#options = options;
    this.#api = new Api(base, options);
    this.#link = alone(options, this.#api, (batch) => this.#take(batch));
    this.#sweeper = setInterval(() => this.#book.sweep(), BEAT_MS);
    const { document } = globalThis;
    document?.addEventListener("visibilitychange", () => this.#changed(), { signal: this.#life.signal });
    this.#changed();
  }

  /** Receive messages of `names`: by `listener`, or without it by `for await` over what is returned.
   * @param {Names} names @param {(message: Message) => void} [listener] @returns {Subscription} */
  subscribe({ quotes = [], trades = [], tier }, listener) {
    const wanted = { q: [...new Set(quotes)], t: [...new Set(trades)] };
    for (const name of [...wanted.q, ...wanted.t]) {
      if (!NAME.test(name)) throw new TypeError(`not a symbol or prefix: ${name}`);
    }
    const each = (/** @type {(map: Map<string, Map<Subscription<any>, any>>, name: string) => void} */ visit) => {
      for (const [type, names] of Object.entries(wanted)) for (const name of names) visit(this.#names[type], name);
      this.#changed();
    };
    const subscription = new Subscription(listener, () => {
      this.#subscriptions.delete(subscription);
      each((map, name) => {
        const askers = map.get(name);
        askers?.delete(subscription);
        if (!askers?.size) map.delete(name);
      });
    });
    this.#subscriptions.add(subscription);
    each((map, name) => map.set(name, (map.get(name) ?? new Map()).set(subscription, tier)));
    // What the session has already, the engine does not send again.
    queueMicrotask(() => {
      for (const [type, names] of Object.entries(wanted)) {
        const matches = matcher(names);
        for (const [symbol, { tick }] of this.#book.slots[type]) {
          if (tick && matches(symbol)) subscription.push(asSnapshot(tick));
        }
      }
    });
    return subscription;
  }

  /** Return the newest tick of a symbol that is subscribed.
   * @template {Channel} [C="quotes"] @param {string} symbol @param {C} [channel]
   * @returns {(C extends "trades" ? Trade : Quote) | undefined} */
  latest(symbol, channel) {
    return /** @type {any} */ (this.#book.slots[(channel ?? "quotes")[0]].get(symbol)?.tick);
  }

  /** Call `listener` at each event of `type`; returns a function that ends that.
   * @template {keyof Events} K @param {K} type @param {(value: Events[K]) => void} listener */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** Receive alerts: as a durable consumer, which acknowledges them, or without `consumer` as a live view.
   * @param {AlertNames} [names] @param {(alert: Alert) => void} [listener] */
  alerts({ patterns = ["*"], consumer = "", start } = {}, listener) {
    const send = (/** @type {string[]} */ alerts) =>
      this.#persist("v1/alerts/ack", { consumer, alerts });
    const subscription = new AlertSubscription(listener, () => {
      this.#alerts.delete(subscription);
      this.#changed();
    }, send);
    this.#alerts.set(subscription, { patterns, consumer, start });
    this.#changed();
    return subscription;
  }

  /** Publish a notice; resolves when it is on the engine's disk. Repeated until then, which `key` makes safe.
   * @param {Notice} notice @returns {Promise<{id: string, key: string}>} */
  publish(notice) {
    return this.#persist("v1/alerts", notice);
  }

  /** Make a request with the token, and return the JSON of its answer. Throws {@link FeedError}.
   * @param {string} path @param {RequestOptions} [options] @returns {Promise<any>} */
  request(path, options) {
    return this.#api.json(path.replace(/^\//, ""), options);
  }

  /** Set the tier of the whole session; null: as its subscriptions ask. @param {string | null} tier */
  setTier(tier) {
    this.#forced = tier ?? undefined;
    this.#changed();
  }

  /** Force a transport, or "auto": choose. @param {Transport["name"] | "auto"} name */
  use(name) {
    this.#link.post({ use: name });
  }

  /** Cut the connection, to see it resume. */
  cut() {
    this.#link.post({ cut: 1 });
  }

  /** The engine's clock now, in µs since the Unix epoch: `feed.now() - quote.r` is an age. */
  now() {
    return Math.round(this.#delta > 0 ? clock() * 1000 + this.#delta : Date.now() * 1000);
  }

  /** @returns {Statistics} */
  statistics() {
    const { quotes, trades } = this.#figures;
    const { count, max } = this.#latency;
    const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => this.#latency.percentile(share));
    return {
      ...this.#figures,
      ticks: quotes + trades,
      duplicates: this.#book.duplicates,
      latencyMs: { count, p50, p90, p99, max: max / 1000 },
      roundTripMs: this.#roundTrip,
      clockOffsetMs: this.now() / 1000 - Date.now(),
      shared: this.#link.shared,
    };
  }

  /** End everything. */
  close() {
    this.#life.abort();
    clearInterval(this.#sweeper);
    for (const subscription of [...this.#subscriptions, ...this.#alerts.keys()]) subscription.unsubscribe();
    this.#link.close();
  }

  /** Tell the Hub what is wanted, once for all changes of this task. */
  #changed() {
    this.#version++;
    if (this.#pending) return;
    this.#pending = true;
    queueMicrotask(() => {
      this.#pending = false;
      if (!this.#life.signal.aborted) this.#link.post({ want: this.#want() });
    });
  }

  /** @returns {Want} */
  #want() {
    const { q, t } = this.#names;
    const tiers = new Set([...q.values(), ...t.values()].flatMap((askers) => [...askers.values()]));
    return {
      quotes: [...q.keys()],
      trades: [...t.keys()],
      tiers: [...tiers].map((tier) => tier ?? this.#options.tier),
      forced: this.#forced,
      alerts: [...this.#alerts.values()],
      visible: globalThis.document?.visibilityState !== "hidden",
    };
  }

  /** @param {Batch} batch */
  #take({ messages, raw, saved, cursor, key, names }) {
    if (names) this.#ids = names;
    this.#saved = saved ?? this.#saved;
    messages ??= typeof raw === "string" ? JSON.parse(raw) : decode(/** @type {ArrayBuffer} */ (raw), this.#ids);
    this.#now = clock() * 1000;
    this.#figures.bytes += typeof raw === "string" ? raw.length : (raw?.byteLength ?? 0);
    for (const m of /** @type {Wire[]} */ (messages)) {
      if (m.T === "a") this.#alert(m, key);
      else this.#book.take(m, this.#emit);
    }
    this.cursor = cursor || null;
  }

  /** @param {Alert} alert @param {string} [key] */
  #alert(alert, key = "") {
    for (const [subscription, { consumer, patterns }] of this.#alerts) {
      if (consumer === key && matcher(patterns)(alert.rule)) subscription.push(alert);
    }
    this.#fire("alert", alert);
    this.#fire("message", alert);
  }

  #emit = (/** @type {Wire} */ m, /** @type {Slot | undefined} */ slot) => {
    if (slot) this.#tick(m, slot);
    else this.#tell(m);
    this.#fire("message", m);
  };

  /** @param {Tick} m @param {Slot} slot */
  #tick(m, slot) {
    this.#figures[m.T === "q" ? "quotes" : "trades"]++;
    if (this.#settled && !m.snap) {
      let late = this.#now + this.#delta - m.r;
      if (!(late >= 0)) {
        this.#delta = m.r - this.#now; // nothing arrives before it was sent: the estimate was wrong
        late = 0;
      }
      this.#latency.add(late);
    }
    if (slot.version !== this.#version) this.#route(m.T, m.S, slot);
    for (const subscription of slot.sinks) subscription.push(m);
  }

  /** Find the subscriptions of a symbol. @param {string} type @param {string} symbol @param {Slot} slot */
  #route(type, symbol, slot) {
    const names = this.#names[type];
    const askers = new Set(names.get(symbol)?.keys());
    for (const [name, more] of names) {
      if (isPattern(name) && symbol.startsWith(name.slice(0, -1))) for (const asker of more.keys()) askers.add(asker);
    }
    slot.sinks = [...askers];
    slot.version = this.#version;
  }

  /** @param {Wire} m */
  #tell(m) {
    const figures = this.#figures;
    const { T, ...fields } = m;
    figures.messages++;
    if (T === "state") this.state = fields;
    else if (T === "transport") this.transport = fields;
    else if (T === "subscription") ({ tier: this.tier, encoding: this.encoding } = m);
    else if (T === "engine" && m.now) this.#delta = m.now - m.at * 1000 + (Date.now() - clock()) * 1000;
    else if (T === "gap") (figures.gaps++, (figures.lost += m.lost));
    else if (T === "lag" && m.on) figures.lags++;
    else if (T === "reset") figures.resets++;
    else if (T === "resumed") figures.reconnects++;
    else if (T === "synced") this.#settled = true;
    else if (T === "disconnected") this.#settled = false;
    else if (T === "pong") this.#roundTrip = clock() - m.t;
    this.#fire(T, STATES.has(T) ? fields : m);
    if (T === "gap") {
      const slot = this.#book.slots[m.channel[0]].get(m.S) ?? { n: 0, version: 0, sinks: [] };
      this.#route(m.channel[0], m.S, slot);
      for (const subscription of slot.sinks) subscription.push(m);
    } else if (!PRIVATE.has(T)) for (const subscription of this.#subscriptions) subscription.push(m);
  }

  /** @param {string} type @param {unknown} value */
  #fire(type, value) {
    const listeners = this.#listeners.get(type);
    if (listeners) for (const listener of listeners) guard(listener, value);
  }

  /** Repeat a request until the engine has answered. @param {string} path @param {unknown} body */
  async #persist(path, body) {
    const { signal } = this.#life;
    for (let ms = 500; ; ms = Math.min(2 * ms, 30000)) {
      try {
        return await this.#api.json(path, { body, signal });
      } catch (error) {
        const { code, retryMs } = /** @type {FeedError} */ (error);
        if (signal.aborted || (code > 0 && code < 500 && code !== 429)) throw error;
        await sleep(retryMs ?? ms * (0.5 + Math.random()), signal);
      }
    }
  }
}

const NAME = /^(?:[!#-)+\-.-[\]-~]{1,24}\*?|\*)$/;
const STATES = new Set(["state", "transport", "tier", "engine"]);
/** Messages that subscriptions do not get. */
const PRIVATE = new Set([...STATES, "epoch", "success", "subscription", "heartbeat", "pong", "acked", "closing"]);

/** A Hub for one Feed. @param {Options} options @param {Api} api @param {(batch: Batch) => void} take */
function alone(options, api, take) {
  const hub = new Hub(options, api);
  return {
    shared: /** @type {Statistics["shared"]} */ ("none"),
    post: (/** @type {Call} */ call) => hub.call("", call, take),
    close: () => hub.close(),
  };
}

/** Connect to the engine at `url`, such as "/" or "https://feed.example.com".
 * @param {string} [url] @param {Options} [options] */
export function connect(url = "/", options = {}) {
  const { href } = new URL(url.replace(/^ws/, "http"), globalThis.location?.href);
  const base = href.replace(/[?#].*/, "").replace(/\/?(v1\/stream)?$/, "/");
  return new Feed(base, { ...options });
}
