/* The page's one session with the engine: its stream, what is known about the engine, and who is signed in.
 *
 * Views subscribe to changes: `engine` (/v1/engine was read), `state` (of the stream), `access` (signed in or
 * out), `feed` (another stream object), `second` (once a second, after the book's), `paint` is in paint.js.
 */
import { connect } from "/marketfeed.js";
import { Book } from "./book.js";
import { api, credentials, getToken, setToken } from "./engine.js";
import { onPaint, whileVisible } from "./paint.js";
import { Conditions } from "./status.js";

const ENGINE_MS = 2000; // between two reads of /v1/engine
const SYMBOLS_MS = 30e3; // of /v1/symbols

class Session {
  constructor() {
    this.book = new Book();
    this.conditions = new Conditions();
    this.engine = null; // the answer of /v1/engine
    this.nodes = []; // that of /v1/nodes
    this.problem = null; // why the last read of it failed
    this.feed = null;
    this.lagging = false;
    this.messages = 0;
    this.tapped = new Map(); // listeners by row
    this.started = performance.now();
    this._listeners = new Map();
    this._epoch = null;
    this._symbolsAt = -Infinity;
    this._secondAt = performance.now();
  }

  /** Call `listener` for each `type`; returns what ends it. */
  on(type, listener) {
    if (!this._listeners.has(type)) this._listeners.set(type, new Set());
    this._listeners.get(type).add(listener);
    return () => this._listeners.get(type).delete(listener);
  }

  emit(type, value) {
    for (const listener of this._listeners.get(type) ?? []) listener(value);
  }

  get state() {
    return this.feed?.state ?? { state: this.needsToken ? "signed out" : "connecting", since: 0 };
  }

  get live() {
    return this.feed?.state.state === "connected";
  }

  /** The row of /v1/nodes of the engine that serves this page; undefined behind a balancer of several. */
  get node() {
    return this.nodes.length === 1 ? this.nodes[0] : this.nodes.find((one) => originOf(one.url) === location.origin);
  }

  /** Whether the engine does not hear the source of its ticks. A long poll learns that late, /v1/nodes does not. */
  get stale() {
    if (!this.live) return false;
    const polls = ["poll", "quotes"].includes(this.feed.transport.name);
    return this.feed.source.state === "stale" || (polls && this.node?.state === "stale");
  }

  /** Whether the engine asks for a token that this tab does not have. */
  get needsToken() {
    return this.engine !== null && this.engine.auth !== "none" && !this.engine.tiers;
  }

  /** The configured tiers that this session may use. */
  get tiers() {
    return this.engine?.tiers ?? [];
  }

  start() {
    whileVisible(ENGINE_MS, () => this.refresh());
    setInterval(() => this._second(), 1000);
    onPaint(() => this._beforePaint());
  }

  /** Read /v1/engine; connect if that is possible now. */
  async refresh() {
    if (this._refreshing) return;
    this._refreshing = true;
    try {
      await this._read();
    } finally {
      this._refreshing = false;
    }
  }

  async _read() {
    try {
      this.engine = await api("/v1/engine");
      this.problem = null;
    } catch (error) {
      if (error.status === 401 && getToken()) {
        this.signOut(error.message);
        return;
      }
      this.problem = error;
      this.emit("engine", this.engine);
      return;
    }
    if (this.engine.tiers && !this.feed) this._connect();
    await this._readNodes();
    const { epoch } = this.engine;
    if (epoch && (epoch !== this._epoch || performance.now() - this._symbolsAt > SYMBOLS_MS)) {
      this._epoch = epoch;
      this._symbolsAt = performance.now();
      await this._readSymbols();
    }
    this._mapFeeds();
    this.emit("engine", this.engine);
  }

  async _readNodes() {
    try {
      this.nodes = this.engine.tiers ? await api("/v1/nodes") : [];
    } catch {
      this.nodes = []; // again with the next read of /v1/engine
    }
  }

  async _readSymbols() {
    try {
      this.book.list((await api("/v1/symbols")).symbols);
    } catch {
      this._symbolsAt = -Infinity; // again with the next read of /v1/engine
    }
  }

  _mapFeeds() {
    const feeds = this.engine.feeds ?? [];
    this.conditions.feeds = this.book.feeds.map((name) => feeds.find((feed) => feed.feed === name));
    this.conditions.only = feeds.length === 1 ? feeds[0] : null;
  }

  _connect() {
    const feed = connect("/", { ...credentials(), encoding: "binary" });
    this.feed = feed;
    feed.on("state", (state) => {
      if (state.state !== "connected") this._lag(false);
      this.emit("state", state);
    });
    feed.on("source", () => this.emit("state", feed.state));
    feed.on("tier", () => this.emit("state", feed.state));
    feed.on("transport", () => this.emit("state", feed.state));
    feed.on("lag", (message) => this._lag(message.on));
    feed.subscribe({ quotes: ["*"], trades: ["*"] }, (message) => this._take(message));
    this.emit("feed", feed);
    this.emit("state", feed.state);
  }

  _take(message) {
    let row = -1;
    switch (message.T) {
      case "q":
        row = this.book.quote(message);
        break;
      case "t":
        row = this.book.trade(message);
        break;
      case "gap":
        this.book.gap(message);
        return;
      case "reset":
        this._reset(message);
        return;
      default:
        return;
    }
    if (this.tapped.size === 0) return;
    const listeners = this.tapped.get(row);
    if (listeners) for (const listener of listeners) listener(message);
  }

  _reset({ symbols }) {
    this.book.reset(symbols && !symbols.some((name) => name.endsWith("*")) ? symbols : null);
  }

  /** Call `listener` with every tick of the symbol in `row`; returns what ends it. */
  tap(row, listener) {
    if (!this.tapped.has(row)) this.tapped.set(row, new Set());
    this.tapped.get(row).add(listener);
    return () => {
      const listeners = this.tapped.get(row);
      listeners.delete(listener);
      if (listeners.size === 0) this.tapped.delete(row);
    };
  }

  _lag(on) {
    this.lagging = on;
    this.emit("state", this.feed.state);
  }

  _beforePaint() {
    const { conditions } = this;
    conditions.connected = this.live;
    conditions.stale = this.stale;
    conditions.lagging = this.lagging;
    conditions.now = this.book.now();
  }

  _second() {
    const now = performance.now();
    const steps = Math.floor((now - this._secondAt + 100) / 1000);
    if (steps < 1) return;
    this._secondAt = steps > 60 ? now : this._secondAt + 1000 * steps;
    if (this.feed) {
      this.statistics = this.feed.statistics();
      this.book.offsetMs = this.statistics.clockOffsetMs ?? 0;
      const tier = this.tiers.find((one) => one.tier === this.feed.tier);
      this.conditions.intervalMs = tier?.interval_ms ?? 0;
    }
    this.book.second(steps);
    this.emit("second", steps);
  }

  /** Sign in; raises RequestError if the engine does not accept the token. */
  async signIn(token) {
    const engine = await api("/v1/engine", { bearer: token });
    if (!engine.tiers)
      throw Object.assign(new Error("the engine did not accept this key or token"), { status: 401 });
    setToken(token);
    this._drop();
    this.engine = engine;
    this.signedOut = null;
    await this.refresh();
    this.emit("access");
  }

  /** Forget the token and everything that it showed. */
  signOut(reason = null) {
    setToken(null);
    this._drop();
    this.signedOut = reason;
    this.engine = null;
    this.emit("access");
    this.refresh();
  }

  _drop() {
    this.feed?.close();
    this.feed = null;
    this.nodes = [];
    this.lagging = false;
    this._symbolsAt = -Infinity;
    this._epoch = null;
    this.tapped.clear();
    this.book = new Book();
    this.emit("feed", null);
  }
}

function originOf(url) {
  try {
    return new URL(url).origin;
  } catch {
    return null;
  }
}

export const session = new Session();
