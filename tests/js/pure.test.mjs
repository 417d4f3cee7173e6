// The parts of marketfeed.js against models, with many random sequences. PARTS is the module with its parts exported.
import assert from "node:assert/strict";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { ModelEngine, random } from "./model_engine.mjs";

const { connect, decode, makeBook, makeSubscription, matcher, query } = await import(pathToFileURL(process.env.PARTS));
const RUNS = Number(process.env.RUNS ?? 200);
const TIERS = [
  { tier: "vip", interval_ms: 0, delivery: "every" },
  { tier: "basic", interval_ms: 500, delivery: "latest" },
];
const SYMBOLS = ["AAPL", "BTC-USD", "BTC-EUR", "X"];
const pick = (chance, list) => list[Math.floor(chance() * list.length)];

// Follows a stream: nothing twice, and each hole told by as many lost ticks as are missing.
class Follower {
  last = new Map();
  told = new Map();
  excused = () => false;
  ticks = 0;
  take(m) {
    if (m.T === "gap") this.told.set(m.channel[0] + m.S, m.lost);
    else if (m.T === "reset") {
      const gone = matcher(m.symbols);
      for (const key of [...this.last.keys()]) if (gone(key.slice(1))) this.last.delete(key);
    } else if (m.T === "q" || m.T === "t") {
      const key = m.T + m.S;
      const last = this.last.get(key);
      if (last !== undefined) {
        assert.ok(m.n > last, `${key}: ${m.n} after ${last}`);
        assert.equal(m.n - last - 1, this.told.get(key) ?? 0, `${key}: ${last} → ${m.n}`);
      }
      this.told.delete(key);
      this.last.set(key, m.n);
      this.ticks++;
    }
  }
  leave(channel, names) {
    const gone = matcher(names);
    for (const key of [...this.last.keys()]) if (key[0] === channel && gone(key.slice(1))) this.last.delete(key);
  }
}

test("a book drops what comes twice and tells what is missing, in whatever order it comes", () => {
  for (let run = 0; run < RUNS; run++) {
    const chance = random(run);
    const follower = new Follower();
    const book = makeBook((m) => follower.take(m));
    book.take({ T: "engine", tiers: TIERS });
    book.take({ T: "subscription", quotes: ["*"], trades: ["*"], tier: "vip" });
    book.take({ T: "synced" });
    const n = new Map();
    let sent = [];
    for (let i = 0; i < 60; i++) {
      const T = pick(chance, ["q", "t"]), S = pick(chance, SYMBOLS);
      n.set(T + S, (n.get(T + S) ?? (run % 3 ? 0 : 0xfffffff0)) + 1);
      sent.push({ T, S, n: n.get(T + S) % 2 ** 32, g: i + 1 });
    }
    if (run % 3 === 0) {
      // Numbers that wrap, as in binary: nothing is missing, and nothing is told.
      const heard = [];
      const other = makeBook((m) => heard.push(m));
      other.take({ T: "engine", tiers: TIERS });
      other.take({ T: "subscription", quotes: ["*"], trades: ["*"], tier: "vip" });
      for (const m of sent) other.take(m);
      assert.deepEqual(heard.slice(2), sent);
      continue;
    }
    // A broken proxy: some are lost, some come twice, some too early.
    sent = sent.filter(() => chance() > 0.1).flatMap((m) => (chance() < 0.1 ? [m, m] : [m]));
    for (let i = 1; i < sent.length; i++) {
      if (chance() < 0.1) [sent[i - 1], sent[i]] = [sent[i], sent[i - 1]];
    }
    for (const m of sent) book.take(m);
    for (const T of ["q", "t"]) for (const [S, slot] of book.slots[T]) assert.equal(slot.n, follower.last.get(T + S));
  }
});

test("a gap of the engine is not told again, and nothing is told on a tier that conflates", () => {
  const heard = [];
  const book = makeBook((m) => heard.push(m));
  for (const m of [
    { T: "engine", tiers: TIERS },
    { T: "subscription", quotes: ["*"], trades: [], tier: "vip" },
    { T: "synced" },
    { T: "q", S: "X", n: 1 },
    { T: "gap", S: "X", channel: "quotes", lost: 3, n: 5 },
    { T: "gap", S: "X", channel: "quotes", lost: 3, n: 5 },
    { T: "q", S: "X", n: 5 },
    { T: "q", S: "X", n: 8 },
    { T: "lag", on: true },
    { T: "q", S: "X", n: 20 },
    { T: "t", S: "X", n: 1 },
    { T: "t", S: "X", n: 3 },
    { T: "lag", on: false, conflated: 11 },
    { T: "subscription", quotes: ["*"], trades: [], tier: "basic" },
    { T: "q", S: "X", n: 90 },
    { T: "news", of: "a later version", n: 1, S: "X" },
  ]) book.take(m);
  const gaps = heard.filter((m) => m.T === "gap");
  assert.deepEqual(gaps, [
    { T: "gap", S: "X", channel: "quotes", lost: 3, n: 5 },
    { T: "gap", S: "X", channel: "quotes", lost: 2, n: 8, announced: false },
    { T: "gap", S: "X", channel: "trades", lost: 1, n: 3, announced: false },
  ]);
  assert.equal(heard.at(-1).T, "news");
});

test("a gap before the first tick of a symbol is told once, and of unknown channels it is passed on", () => {
  const heard = [];
  const book = makeBook((m) => heard.push(m));
  const gap = { T: "gap", S: "X", channel: "quotes", lost: 4, n: 5 };
  for (const m of [
    { T: "engine", tiers: TIERS },
    { T: "subscription", quotes: ["*"], trades: [], tier: "vip" },
    { T: "synced" },
    gap,
    { T: "q", S: "X", n: 5 },
    { T: "q", S: "X", n: 6 },
    { ...gap, channel: "depth" },
  ]) book.take(m);
  assert.deepEqual(heard.filter((m) => m.T === "gap"), [gap, { ...gap, channel: "depth" }]);
});

test("who joins a stream that lags is not told of gaps, as quotes are conflated", () => {
  const heard = [];
  const book = makeBook((m) => heard.push(m));
  for (const m of [
    { T: "engine", tiers: TIERS },
    { T: "joined", quotes: ["*"], trades: [], tier: "vip", lagging: true },
    { T: "synced" },
    { T: "q", S: "X", n: 1 },
    { T: "q", S: "X", n: 9 },
    { T: "lag", on: false, conflated: 7 },
    { T: "q", S: "X", n: 11 },
  ]) book.take(m);
  assert.deepEqual(heard.filter((m) => m.T === "gap").map((m) => m.n), [11]);
});

test("a loop that is slow gets the newest of each symbol, and is told how many it missed", async () => {
  for (let run = 0; run < 5; run++) {
    const chance = random(run);
    const subscription = makeSubscription(undefined, () => {});
    const sent = 25000;
    const newest = new Map();
    for (let i = 1; i <= sent; i++) {
      const m = { T: "q", S: pick(chance, SYMBOLS), n: i, g: i };
      newest.set(m.S, i);
      subscription.push(m);
    }
    let seen = 0, conflated = 0;
    const last = new Map();
    for await (const m of subscription) {
      if (m.T === "lag") conflated += m.conflated ?? 0;
      else {
        assert.ok(m.g > (last.get(m.S) ?? 0));
        last.set(m.S, m.g);
        seen++;
      }
      if (seen + conflated === sent) break;
    }
    assert.ok(conflated > 0 && seen < 11000);
    assert.deepEqual(last, newest);
  }
});

test("a listener that throws does not stop the others", (t) => {
  t.mock.method(console, "error", () => {});
  const heard = [];
  const bad = makeSubscription(() => { throw new Error("mine"); }, () => {});
  const good = makeSubscription((m) => heard.push(m), () => {});
  for (const s of [bad, good]) s.push({ T: "q" });
  assert.equal(heard.length, 1);
  assert.equal(console.error.mock.callCount(), 1);
});

test("names are escaped in URLs, and too many become all", () => {
  const odd = "A&b=c%#?/+;:'~^|<>`$@!()[]{}";
  const fields = new URLSearchParams(query({ quotes: [odd.slice(0, 24), "B*"], trades: [], tier: "", after: undefined }));
  assert.deepEqual([...fields], [["quotes", `${odd.slice(0, 24)},B*`]]);
  const long = query({ quotes: Array.from({ length: 90 }, (_, i) => `${"%".repeat(20)}${i}`), trades: ["A"] });
  assert.equal(long, "quotes=*&trades=A"); // 2,000 characters would be 6,000 in the URL
  assert.equal(query({ quotes: Array.from({ length: 400 }, (_, i) => `SYMBOL${i}`) }), "quotes=*");
});

test("names with every allowed character are accepted, others are refused", () => {
  const feed = connect("http://127.0.0.1:9", { fetch: async () => new Response("{}"), WebSocket: new ModelEngine(random(1), []).WebSocket });
  let allowed = "";
  for (let code = 33; code < 127; code++) if (!' ,*"\\'.includes(String.fromCharCode(code))) allowed += String.fromCharCode(code);
  for (let i = 0; i < allowed.length; i += 20) feed.subscribe({ quotes: [allowed.slice(i, i + 20), `${allowed.slice(i, i + 3)}*`, "*"] }).unsubscribe();
  for (const bad of ["", "A B", "A,B", "*A", 'A"', "A\\", "ä", "A**", "x".repeat(25), "__proto__\n"]) {
    assert.throws(() => feed.subscribe({ quotes: [bad] }), TypeError, bad);
  }
  feed.close();
});

test("the engine's restarts, cuts at any moment and changed subscriptions leave no hole untold", async () => {
  for (let run = 0; run < RUNS / 4; run++) {
    const chance = random(1000 + run);
    const engine = new ModelEngine(chance, SYMBOLS);
    const follower = new Follower();
    const info = JSON.stringify({ version: "1", tiers: TIERS, default_tier: "vip", now: 5e15 });
    const feed = connect("http://engine.example/", {
      WebSocket: engine.WebSocket,
      fetch: async () => new Response(info),
      transport: "websocket",
      retryMs: [0, 1],
      slowWhenWeak: false,
    });
    feed.on("message", (m) => follower.take(m));
    let told = 0;
    feed.on("disconnected", () => told++);
    const subscriptions = [feed.subscribe({ quotes: ["*"], trades: ["X"] }, () => {})];
    const settle = () => new Promise((resolve) => setTimeout(resolve, 0));
    for (let step = 0; step < 120; step++) {
      const dice = chance();
      if (dice < 0.5) engine.tick();
      else if (dice < 0.8) for (const socket of [...engine.sockets]) engine.deliver(socket, 1 + Math.floor(chance() * 5));
      else if (dice < 0.86) for (const socket of [...engine.sockets]) engine.cut(socket);
      else if (dice < 0.88) engine.restart();
      else if (dice < 0.9) engine.overwrite();
      else if (dice < 0.95 && subscriptions.length < 4) {
        const name = pick(chance, ["AAPL", "BTC*", "*", "BTC-USD"]);
        subscriptions.push(feed.subscribe({ trades: [name], quotes: [name] }, () => {}));
      } else if (subscriptions.length > 1) {
        subscriptions.splice(1, 1)[0].unsubscribe();
        // What is unsubscribed may come again from its newest tick.
        const unwanted = (key) => !matcher(key[0] === "q" ? ["*"] : ["X"])(key.slice(1));
        for (const key of [...follower.last.keys()]) if (unwanted(key)) follower.last.delete(key);
      }
      if (dice > 0.5) await settle();
    }
    // In the end everything that is wanted has come.
    for (let i = 0; i < 200; i++) {
      for (const socket of [...engine.sockets]) engine.deliver(socket, 100);
      await new Promise((resolve) => setTimeout(resolve, 1));
      const due = [...engine.counts].filter(([key]) => key[0] === "q" || key === "tX");
      if (engine.sockets.size && due.every(([key, n]) => follower.last.get(key) === n)) break;
      assert.ok(i < 199, `run ${run}: ${JSON.stringify([...engine.counts])} ${JSON.stringify([...follower.last])}`);
    }
    assert.ok(follower.ticks > 0);
    feed.close();
  }
});

test("frames of a later version are refused, unknown kinds passed over", () => {
  const frame = (version, kind, bytes) => {
    const buffer = new ArrayBuffer(16 + bytes.length);
    const view = new DataView(buffer);
    view.setUint8(0, version);
    view.setUint8(1, kind);
    view.setUint32(4, bytes.length, true);
    new Uint8Array(buffer).set(bytes, 16);
    return buffer;
  };
  assert.throws(() => decode(frame(2, 4, []), []), { code: 1002 });
  assert.deepEqual(decode(frame(1, 9, [1, 2, 3]), []), []);
  assert.deepEqual(decode(frame(1, 4, new TextEncoder().encode('[{"T":"x"}]')), []), [{ T: "x" }]);
});
