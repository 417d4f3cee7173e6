// An engine and a network for marketfeed.js, on a virtual clock: a minute takes no time. PARTS is the module with its parts exported.
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const NAMES = ["addEventListener", "dispatchEvent", "removeEventListener"];
export const network = new EventTarget();
export const connection = new EventTarget();
for (const name of NAMES) globalThis[name] = network[name].bind(network);
Object.defineProperty(globalThis, "navigator", { value: { connection }, configurable: true });
export const { connect, makeStream } = await import(pathToFileURL(process.env.PARTS));

const TIERS = [
  { tier: "vip", interval_ms: 0, delivery: "every" },
  { tier: "premium", interval_ms: 100, delivery: "latest" },
  { tier: "basic", interval_ms: 500, delivery: "latest" },
];
export const INFO = { version: "1", tiers: TIERS, default_tier: "vip", now: 5e15 };
const HEAD = { T: "success", msg: "connected", protocol: 1, epoch: "e", session: "s" };

// Timers of a clock that stands until `to` moves it; those of Node 20's test runner lose some.
class Clock {
  now = 0;
  timers = new Map();
  last = 0;
  real = { setTimeout, clearTimeout, setInterval, clearInterval };

  constructor() {
    const add = (run, ms = 0, every) => this.timers.set(++this.last, { run, at: this.now + ms, every }) && this.last;
    globalThis.setTimeout = (run, ms) => add(run, ms);
    globalThis.setInterval = (run, ms) => add(run, ms, ms);
    globalThis.clearTimeout = globalThis.clearInterval = (id) => this.timers.delete(id);
    performance.now = () => this.now;
  }

  to(end) {
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort((a, b) => a[1].at - b[1].at)[0];
      if (!due) break;
      const [id, timer] = due;
      this.now = timer.at;
      if (timer.every) timer.at += timer.every;
      else this.timers.delete(id);
      timer.run();
    }
    this.now = end;
  }

  restore() {
    Object.assign(globalThis, this.real);
    delete performance.now;
  }
}

// An engine, and the network before it. `routes` answer requests by path; `blocked` WebSockets fail.
class World {
  clock = new Clock();
  blocked = false;
  down = new Set(); // hosts that cannot be reached
  greeting = []; // what a session is told at its begin
  mute = false; // open WebSockets answer nothing
  delayMs = 0; // of pongs
  asked = []; // [ms, path, host, headers] of all requests
  sockets = [];
  feeds = [];
  routes = {};

  constructor() {
    const world = this;
    this.WebSocket = class {
      readyState = 0;
      sent = [];
      told = { quotes: [], trades: [], alerts: [], tier: "vip", encoding: "json" }; // the subscription
      constructor(url) {
        this.host = new URL(url).host;
        world.asked.push([world.now, "/v1/stream", this.host]);
        world.sockets.push(this);
        setTimeout(() => (world.blocked || world.down.has(this.host) ? this.end(1006) : this.begin()), 10);
      }
      begin() {
        this.put(HEAD);
        if (world.greeting.length) this.put(...world.greeting);
      }
      put(...messages) {
        this.readyState = 1;
        if (!world.mute) this.onmessage?.({ data: JSON.stringify(messages) });
      }
      send(text) {
        const { action, id, t, tier = this.told.tier, quotes = this.told.quotes, encoding = this.told.encoding } = JSON.parse(text);
        this.sent.push(JSON.parse(text));
        if (action === "ping") setTimeout(() => this.put({ T: "pong", t }), world.delayMs);
        if (action !== "subscribe") return;
        const refusal = world.refuse?.(JSON.parse(text));
        if (refusal) this.put({ T: "error", id, ...refusal });
        else {
          Object.assign(this.told, { quotes, tier, encoding });
          this.put({ T: "subscription", ...this.told, id }, { T: "synced", cursor: "e:1", id });
        }
      }
      close() {
        this.readyState = 3;
      }
      end(code, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
    };
    this.fetch = async (url, { signal, method, body, headers } = {}) => {
      const { host, pathname, searchParams } = new URL(url);
      signal?.throwIfAborted();
      this.asked.push([this.now, pathname, host, headers]);
      if (this.down.has(host)) throw new TypeError("fetch failed");
      const route = this.routes[pathname] ?? (() => new Response(JSON.stringify(INFO)));
      const ended = new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
      return Promise.race([route(searchParams, { signal, method, body, host }), ended]);
    };
  }

  connect({ url = "http://engine.example/", ...options } = {}) {
    const feed = connect(url, { WebSocket: this.WebSocket, fetch: this.fetch, ...options });
    feed.told = [];
    feed.on("message", (m) => feed.told.push(m));
    this.feeds.push(feed);
    return feed;
  }

  get now() {
    return this.clock.now;
  }

  // What happens within `ms`, in steps that promises can keep up with.
  async pass(ms) {
    for (const end = this.now + ms; this.now < end; ) {
      this.clock.to(Math.min(this.now + 250, end));
      for (let i = 0; i < 20; i++) await new Promise(setImmediate);
    }
  }

  times(path, after = 0) {
    return this.asked.filter(([at, asked]) => asked === path && at >= after).map(([at]) => at);
  }

  close() {
    for (const feed of this.feeds) feed.close();
    this.clock.restore();
  }
}

export const scenario = (name, run) =>
  test(name, async () => {
    const world = new World();
    try {
      await run(world);
    } finally {
      world.close();
    }
  });

export const refusal = (status, msg, headers) => new Response(JSON.stringify({ error: { code: status, msg } }), { status, headers });
// An event stream that begins, and stays open.
export const stream = (signal, ...blocks) => {
  const start = (out) => {
    for (const block of blocks) out.enqueue(new TextEncoder().encode(block));
    signal.addEventListener("abort", () => out.error(signal.reason));
  };
  return new Response(new ReadableStream({ start }));
};
export const events = (_, { signal }) => stream(signal, 'data: [{"T":"subscription","quotes":["*"],"tier":"vip","encoding":"json"}]\n\n', 'id: e:1\ndata: [{"T":"synced","cursor":"e:1"}]\n\n');
// Long polls: the first answers at once, others with `wait`.
export const polls = (wait) => (query, { signal }) => {
  const answer = (status, body) => new Response(body, { status, headers: { "X-Cursor": "e:1" } });
  if (query.get("timeout_s") !== "0") return wait(answer, signal);
  return query.get("after") ? answer(204) : answer(200, '{"cursor":"e:1","messages":[]}');
};
export const later = (ms, make) => new Promise((resolve) => setTimeout(() => resolve(make()), ms));
