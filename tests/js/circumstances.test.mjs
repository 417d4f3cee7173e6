// marketfeed.js when the network changes, is weak, blocks or goes mute. Time is virtual: a minute takes no time.
import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";

const NAMES = ["addEventListener", "dispatchEvent", "removeEventListener"];
const network = new EventTarget(), connection = new EventTarget();
for (const name of NAMES) globalThis[name] = network[name].bind(network);
Object.defineProperty(globalThis, "navigator", { value: { connection }, configurable: true });
const { connect, makeStream } = await import(pathToFileURL(process.env.PARTS));

const TIERS = [
  { tier: "vip", interval_ms: 0, delivery: "every" },
  { tier: "premium", interval_ms: 100, delivery: "latest" },
  { tier: "basic", interval_ms: 500, delivery: "latest" },
];
const INFO = { version: "1", tiers: TIERS, default_tier: "vip", now: 5e15 };
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
  mute = false; // open WebSockets answer nothing
  delayMs = 0; // of pongs
  asked = []; // [ms, path] of all requests
  sockets = [];
  feeds = [];
  routes = {};

  constructor() {
    const world = this;
    this.WebSocket = class {
      readyState = 0;
      sent = [];
      constructor() {
        world.asked.push([world.now, "/v1/stream"]);
        world.sockets.push(this);
        setTimeout(() => (world.blocked ? this.end(1006) : this.put(HEAD)), 10);
      }
      put(...messages) {
        this.readyState = 1;
        if (!world.mute) this.onmessage?.({ data: JSON.stringify(messages) });
      }
      send(text) {
        const { action, id, t, tier, quotes = [] } = JSON.parse(text);
        this.sent.push(JSON.parse(text));
        if (action === "ping") setTimeout(() => this.put({ T: "pong", t }), world.delayMs);
        if (action !== "subscribe") return;
        const told = { T: "subscription", quotes, trades: [], alerts: [], tier: tier ?? "vip", encoding: "json", id };
        const refusal = world.refuse?.(JSON.parse(text));
        if (refusal) this.put({ T: "error", id, ...refusal });
        else this.put(told, { T: "synced", cursor: "e:1", id });
      }
      close() {
        this.readyState = 3;
      }
      end(code, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
    };
    this.fetch = async (url, { signal, method, body } = {}) => {
      const { pathname, searchParams } = new URL(url);
      signal?.throwIfAborted();
      this.asked.push([this.now, pathname]);
      const route = this.routes[pathname] ?? (() => new Response(JSON.stringify(INFO)));
      const ended = new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
      return Promise.race([route(searchParams, { signal, method, body }), ended]);
    };
  }

  connect(options = {}) {
    const feed = connect("http://engine.example/", { WebSocket: this.WebSocket, fetch: this.fetch, ...options });
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

const scenario = (name, run) =>
  test(name, async () => {
    const world = new World();
    try {
      await run(world);
    } finally {
      world.close();
    }
  });

const refusal = (status, msg, headers) => new Response(JSON.stringify({ error: { code: status, msg } }), { status, headers });
// An event stream that begins, and stays open.
const stream = (signal, ...blocks) => {
  const start = (out) => {
    for (const block of blocks) out.enqueue(new TextEncoder().encode(block));
    signal.addEventListener("abort", () => out.error(signal.reason));
  };
  return new Response(new ReadableStream({ start }));
};
const events = (_, { signal }) => stream(signal, 'data: [{"T":"subscription","quotes":["*"],"tier":"vip","encoding":"json"}]\n\n', 'id: e:1\ndata: [{"T":"synced","cursor":"e:1"}]\n\n');
// Long polls: the first answers at once, others with `wait`.
const polls = (wait) => (query, { signal }) => {
  const answer = (status, body) => new Response(body, { status, headers: { "X-Cursor": "e:1" } });
  if (query.get("timeout_s") !== "0") return wait(answer, signal);
  return query.get("after") ? answer(204) : answer(200, '{"cursor":"e:1","messages":[]}');
};
const later = (ms, make) => new Promise((resolve) => setTimeout(() => resolve(make()), ms));

for (const [what, happen] of [
  ["the browser is online again", () => network.dispatchEvent(new Event("online"))],
  ["the connection changes", () => connection.dispatchEvent(new Event("change"))],
  ["a minute has passed", () => {}],
]) {
  scenario(`WebSocket is used again when ${what}`, async (world) => {
    world.routes["/v1/events"] = events;
    world.blocked = true;
    const feed = world.connect({ retryMs: [100, 200] });
    feed.subscribe({ quotes: ["*"] }, () => {});
    await world.pass(3000);
    assert.equal(feed.transport.name, "events");
    await world.pass(30_000);
    const tried = world.sockets.length;
    happen();
    await world.pass(500);
    if (!what.includes("minute")) assert.equal(world.sockets.length, tried + 1); // still blocked
    assert.deepEqual([feed.transport.name, feed.state.state], ["events", "connected"]);
    world.blocked = false;
    happen();
    await world.pass(what.includes("minute") ? 40_000 : 1500);
    assert.deepEqual([feed.transport, feed.state.state], [{ name: "websocket", why: "works again" }, "connected"]);
    assert.equal(feed.told.filter((m) => m.T === "reset").length, 0);
  });
}

scenario("without WebSocket the first transport is tried again", async (world) => {
  world.routes["/v1/events"] = () => refusal(502, "blocked");
  world.routes["/v1/poll"] = polls((answer) => later(25_000, () => answer(204)));
  const feed = world.connect({ retryMs: [100, 200], WebSocket: null });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(5000);
  assert.equal(feed.transport.name, "poll");
  world.routes["/v1/events"] = events;
  await world.pass(80_000);
  assert.deepEqual([feed.transport.name, feed.state.state], ["events", "connected"]);
});

scenario("a weak link has the next slower tier until it is not weak", async (world) => {
  const feed = world.connect();
  feed.subscribe({ quotes: ["*"], tier: "vip" }, () => {});
  const tiers = () => feed.told.filter((m) => m.T === "tier").map(({ tier, why }) => [tier, why]);
  await world.pass(12_000);
  assert.deepEqual(tiers(), [["vip", "asked"]]);
  world.delayMs = 2000;
  await world.pass(12_000);
  assert.deepEqual(tiers().at(-1), ["premium", "weak"]);
  world.delayMs = 20;
  await world.pass(25_000);
  assert.deepEqual(tiers().at(-1), ["premium", "weak"]); // for 30 s
  await world.pass(25_000);
  assert.deepEqual(tiers().at(-1), ["vip", "asked"]);
  world.sockets.at(-1).put({ T: "lag", on: true });
  await world.pass(100);
  assert.deepEqual(tiers().at(-1), ["premium", "weak"]);
  world.sockets.at(-1).put({ T: "lag", on: false, conflated: 3 });
  await world.pass(45_000);
  assert.deepEqual(tiers().at(-1), ["vip", "asked"]);
  assert.equal(world.sockets.length, 1);
});

scenario("with slowWhenWeak off the tier stays", async (world) => {
  const feed = world.connect({ slowWhenWeak: false });
  feed.subscribe({ quotes: ["*"], tier: "vip" }, () => {});
  await world.pass(1000);
  world.delayMs = 2000;
  world.sockets[0].put({ T: "lag", on: true });
  await world.pass(40_000);
  assert.equal(feed.tier, "vip");
});

for (const status of [429, 503]) {
  scenario(`status ${status} is repeated when Retry-After says so, on each route`, async (world) => {
    const slow = () => refusal(status, "too many", { "Retry-After": "7" });
    world.routes["/v1/events"] = slow;
    const feed = world.connect({ transport: "events", retryMs: [10, 20] });
    feed.subscribe({ quotes: ["*"] }, () => {});
    await world.pass(1000);
    const { code, reason, retryMs } = feed.state;
    assert.deepEqual([code, reason, retryMs], [status, "too many", 7000]);
    world.routes["/v1/alerts"] = slow;
    const published = feed.publish({ key: "k", msg: "m" });
    await world.pass(29_000);
    for (const path of ["/v1/events", "/v1/alerts"]) {
      const times = world.times(path, 1000);
      assert.ok(times.length >= 3 && times.length <= 5, `${path}: ${times}`);
      for (let i = 1; i < times.length; i++) assert.ok(times[i] - times[i - 1] >= 7000, `${path}: ${times}`);
    }
    world.routes["/v1/events"] = events;
    world.routes["/v1/alerts"] = () => new Response('{"id":"1","key":"k"}', { status: 201 });
    await world.pass(8000);
    assert.equal(feed.state.state, "connected");
    assert.deepEqual(await published, { id: "1", key: "k" });
  });
}

scenario("a connection that is up but mute is replaced", async (world) => {
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(35_000); // nothing comes but pongs
  assert.equal(world.sockets.length, 1);
  world.mute = true;
  await world.pass(22_000);
  assert.deepEqual(feed.told.findLast((m) => m.T === "disconnected").reason, "no answer");
  world.mute = false;
  await world.pass(10_000);
  assert.equal(feed.state.state, "connected");
});

scenario("an event stream and a poll that are mute are replaced", async (world) => {
  world.routes["/v1/events"] = events;
  world.routes["/v1/poll"] = polls(() => new Promise(() => {}));
  for (const [transport, ms] of [["events", 66_000], ["poll", 36_000]]) {
    const feed = world.connect({ transport, retryMs: [100, 200] });
    feed.subscribe({ quotes: ["*"] }, () => {});
    await world.pass(1000);
    assert.equal(feed.state.state, "connected");
    await world.pass(ms);
    assert.equal(feed.told.findLast((m) => m.T === "disconnected").reason, "no answer", transport);
    feed.close();
  }
});

for (const [what, wait] of [
  ["end with an error", (answer) => later(5000, () => refusal(504, "gateway timeout"))],
  ["are never answered", () => new Promise(() => {})],
]) {
  scenario(`polls whose waiting requests ${what} become short polls`, async (world) => {
    world.blocked = true;
    world.routes["/v1/events"] = () => refusal(502, "blocked");
    world.routes["/v1/poll"] = polls(wait);
    const feed = world.connect({ retryMs: [100, 200] });
    feed.subscribe({ quotes: ["*"] }, () => {});
    await world.pass(45_000);
    await world.pass(45_000);
    assert.equal(feed.transport.name, "quotes");
    assert.match(feed.transport.why, /^poll: (HTTP status 504|gateway timeout|no answer)$/);
    const before = feed.told.filter((m) => m.T === "disconnected").length;
    await world.pass(20_000);
    assert.equal(feed.told.filter((m) => m.T === "disconnected").length, before);
  });
}

scenario("Retry-After does not change the transport", async (world) => {
  world.blocked = true;
  let busy = 3;
  world.routes["/v1/events"] = (...given) => (busy-- > 0 ? refusal(503, "busy", { "Retry-After": "5" }) : events(...given));
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(20_000);
  assert.equal(feed.transport.name, "events");
  assert.equal(world.sockets.length, 2);
});

scenario("a transport that does not exist is as none given", async (world) => {
  const feed = world.connect({ transport: "carrier pigeon" });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  feed.use("close");
  await world.pass(1000);
  assert.deepEqual([feed.transport.name, feed.state.state], ["websocket", "connected"]);
});

for (const [msg, missing] of [
  ["not entitled: alerts", "alerts"],
  ["not entitled: AAPL on quotes", "quotes"],
  ["not entitled: AAPL on trades", "trades"],
]) {
  scenario(`over events, "${msg}" takes nothing else away`, async (world) => {
    let asked = null;
    world.routes["/v1/events"] = (query, given) => {
      asked = query;
      return query.has(missing) ? refusal(403, msg) : events(query, given);
    };
    const feed = world.connect({ transport: "events", retryMs: [100, 200] });
    feed.subscribe({ quotes: ["AAPL"], trades: ["AAPL"] }, () => {});
    feed.alerts({}, () => {});
    await world.pass(1500);
    const left = ["quotes", "trades", "alerts"].filter((name) => asked.has(name));
    assert.deepEqual(left, ["quotes", "trades", "alerts"].filter((name) => name !== missing));
    assert.equal(feed.state.state, "connected");
  });
}

scenario("polls that wait in vain stay polls", async (world) => {
  world.blocked = true;
  world.routes["/v1/events"] = () => refusal(502, "blocked");
  world.routes["/v1/poll"] = polls((answer) => later(25_000, () => answer(204)));
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(200_000);
  assert.equal(feed.transport.name, "poll");
});

scenario("what the engine refuses for good is not asked for again", async (world) => {
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  world.sockets[0].end(4502, "revoked");
  await world.pass(100);
  assert.deepEqual([feed.state.code, feed.state.retryMs], [4502, null]);
  network.dispatchEvent(new Event("online"));
  await world.pass(300_000);
  assert.equal(world.sockets.length, 1);
});

scenario("tiers that do not exist are each told once", async (world) => {
  world.refuse = ({ tier }) => ["gold", "iron"].includes(tier) && { code: 400, msg: `no tier ${tier}` };
  const feed = world.connect();
  for (const tier of ["gold", "iron"]) feed.subscribe({ quotes: ["*"], tier }, () => {});
  await world.pass(2000);
  assert.equal(feed.told.filter((m) => m.T === "error").length, 2);
  assert.equal(feed.tier, "vip");
  assert.ok(world.sockets[0].sent.length < 12);
});

scenario("alerts of a consumer over polls: one request at a time, whatever fails", async (world) => {
  let open = 0, most = 0;
  world.routes["/v1/poll"] = () => refusal(502, "blocked");
  world.routes["/v1/alerts"] = async (query, { signal }) => {
    most = Math.max(most, ++open);
    signal.addEventListener("abort", () => open--);
    await new Promise(() => {});
  };
  const feed = world.connect({ transport: "poll", retryMs: [100, 200] });
  feed.alerts({ consumer: "desk" }, () => {});
  await world.pass(30_000);
  assert.equal(most, 1);
});

scenario("a consumer that is not entitled is told, once", async (world) => {
  world.routes["/v1/poll"] = polls((answer) => later(25_000, () => answer(204)));
  world.routes["/v1/alerts"] = () => refusal(403, "not entitled: consumer desk");
  const feed = world.connect({ transport: "poll", retryMs: [100, 200] });
  const errors = [];
  feed.on("error", (m) => errors.push(m.msg));
  feed.alerts({ consumer: "desk" }, () => {});
  await world.pass(60_000);
  assert.deepEqual(errors, ["not entitled: consumer desk"]);
  assert.equal(world.times("/v1/alerts").length, 1);
});

scenario("an event with any characters is read, and a broken one ends its connection", async (world) => {
  const signals = [];
  const odd = "a\u2028data: b\u2029c\u0085\ud83d\ude00";
  world.routes["/v1/events"] = (_, { signal }) => {
    signals.push(signal);
    if (signals.length > 1) return events(_, { signal });
    const alert = JSON.stringify([{ T: "a", rule: "wide", id: "1", msg: odd, data: { odd } }]);
    return stream(signal, `id: e:1\ndata: ${alert}\n\n`, "data: [{broken\n\n");
  };
  const feed = world.connect({ transport: "events", retryMs: [100, 200] });
  const got = [];
  feed.alerts({}, (m) => got.push(m));
  await world.pass(2000);
  assert.deepEqual(got.map((m) => [m.msg, m.data.odd]), [[odd, odd]]);
  assert.deepEqual([signals.length, signals[0].aborted], [2, true]);
});

scenario("a feed that joins gets the state of quiet symbols, even if that fails at first", async (world) => {
  let failures = 2;
  const snapshot = { cursor: "e:1", messages: [{ T: "q", S: "QUIET", n: 7, g: 1, snap: 1 }] };
  world.routes["/v1/poll"] = () => (failures-- > 0 ? refusal(503, "busy") : new Response(JSON.stringify(snapshot)));
  const api = { base: "http://engine.example/", token: async () => "", call: async (path) => {
    const answer = await world.fetch(api.base + path);
    if (!answer.ok) throw Object.assign(new Error("busy"), { code: answer.status });
    return answer;
  }, json: async () => INFO };
  const shared = makeStream({ base: api.base, WebSocket: world.WebSocket }, api);
  const want = { names: ["q*"], tiers: [""], visible: true };
  shared.call("first", { want }, () => {});
  await world.pass(1000);
  const told = [];
  shared.call("second", { want }, ({ messages = [] }) => told.push(...messages));
  await world.pass(6000);
  shared.close();
  assert.equal(told.filter((m) => m.S === "QUIET").length, 1);
  assert.equal(told.at(-1).T, "synced");
});
