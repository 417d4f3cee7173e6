// marketfeed.js with engines on several machines: a stale source, engines that send clients elsewhere, /v1/nodes.
import assert from "node:assert/strict";
import { nodes } from "../../js/nodes.js";
import { INFO, events, makeStream, polls, refusal, scenario } from "./world.mjs";

const HOME = "engine.example", B = "b.example:8765", C = "c.example";
const source = (state, t) => ({ T: "source", shard: "s0", state, t });
const row = (host, sessions, more) => ({ url: `http://${host}`, site: "", sessions, capacity: 100, state: "ready", ...more });
const rows = (...given) => () => new Response(JSON.stringify(given));
const ALONE = rows(row(HOME, 0));
const sources = (feed) => feed.told.filter((m) => m.T === "source").map(({ state, t }) => [state, t]);

// The engine of the newest WebSocket ends, and sends its clients to `url`.
async function drain(world, url, ms = 3000) {
  world.sockets.at(-1).put({ T: "closing", code: 1001, msg: "shutdown", retry_ms: 500, url });
  world.sockets.at(-1).end(1001);
  await world.pass(ms);
}

async function connected(world, options) {
  world.routes["/v1/nodes"] ??= ALONE;
  const feed = world.connect({ nodes, retryMs: [100, 200], ...options });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  return feed;
}

scenario("the state of the source reaches listeners, subscriptions and the feed", async (world) => {
  const feed = world.connect();
  const heard = [], got = [];
  feed.on("source", (m) => heard.push(m));
  feed.subscribe({ quotes: ["*"] }, (m) => got.push(m));
  assert.deepEqual(feed.source, { shard: "", state: "live", t: 0 });
  await world.pass(1000);
  const [stale, live] = [source("stale", 5), source("live", 9)];
  world.sockets[0].put(stale);
  await world.pass(1);
  assert.deepEqual(feed.source, { shard: "s0", state: "stale", t: 5 });
  world.sockets[0].put(live);
  await world.pass(1);
  assert.deepEqual([feed.source.state, feed.source.t], ["live", 9]);
  assert.deepEqual([heard, got.filter((m) => m.T === "source")], [[stale, live], [stale, live]]);
});

scenario("a feed that joins a shared stream is told that its source is stale", async (world) => {
  world.routes["/v1/poll"] = () => new Response('{"cursor":"e:1","messages":[]}');
  const api = { base: "http://engine.example/", token: async () => "", call: (path) => world.fetch(api.base + path), json: async () => INFO };
  const shared = makeStream({ base: api.base, WebSocket: world.WebSocket }, api);
  const want = { names: ["q*"], tiers: [""], visible: true };
  shared.call("first", { want }, () => {});
  await world.pass(1000);
  world.sockets[0].put(source("stale", 5));
  await world.pass(1);
  const told = [];
  shared.call("second", { want }, ({ messages = [] }) => told.push(...messages));
  shared.close();
  assert.deepEqual(told.filter((m) => m.T === "source"), [source("stale", 5)]);
});

scenario("after a cut the source is what the new session says: live, unless that is told otherwise", async (world) => {
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  world.sockets[0].put(source("stale", 5));
  await world.pass(1);
  feed.cut();
  await world.pass(1000);
  assert.deepEqual([feed.source.state, sources(feed)], ["live", [["stale", 5], ["live", 0]]]);
  assert.equal(feed.told.findLastIndex((m) => m.T === "source") < feed.told.findLastIndex((m) => m.T === "synced"), true);
  world.sockets.at(-1).put(source("stale", 6));
  await world.pass(1);
  world.greeting = [source("stale", 6)];
  feed.cut();
  await world.pass(1000);
  assert.deepEqual(sources(feed).slice(2), [["stale", 6], ["stale", 6]]); // at no time live
});

scenario("events and polls know the state of the source", async (world) => {
  world.routes["/v1/events"] = events;
  const feed = world.connect({ transport: "events", retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  assert.deepEqual([feed.state.state, sources(feed)], ["connected", []]);
  let headers = { "X-Cursor": "e:1", "X-Source": "stale" };
  world.routes["/v1/poll"] = () => new Response('{"cursor":"e:1","messages":[]}', { headers });
  feed.use("quotes");
  await world.pass(4000);
  assert.deepEqual([feed.source.state, sources(feed)], ["stale", [["stale", 0]]]);
  feed.cut();
  await world.pass(2000);
  assert.deepEqual(sources(feed), [["stale", 0]]);
  headers = { "X-Cursor": "e:1" };
  await world.pass(2000);
  assert.deepEqual([feed.source.state, sources(feed)], ["live", [["stale", 0], ["live", 0]]]);
  headers = { "X-Cursor": "e:1", "X-Source": "stale" };
  await world.pass(2000);
  feed.use("events");
  await world.pass(2000);
  assert.deepEqual([feed.state.state, feed.source.state], ["connected", "live"]);
});

scenario("closing.url is followed with the cursor and the token", async (world) => {
  world.routes["/v1/tickets"] = () => new Response('{"ticket":"x"}');
  const feed = await connected(world, { token: "secret" });
  await drain(world, `http://${B}/v1/stream`);
  const socket = world.sockets.at(-1);
  assert.deepEqual([world.sockets.length, socket.host, feed.state.state], [2, B, "connected"]);
  const [{ after, quotes }] = socket.sent.filter((m) => m.action === "subscribe");
  assert.deepEqual([after, quotes], ["e:1", ["*"]]);
  assert.equal(feed.told.some((m) => m.T === "reset"), false);
  assert.deepEqual(feed.told.findLast((m) => m.T === "resumed").cursor, "e:1");
  await feed.request("/v1/symbols");
  const [, , host, headers] = world.asked.at(-1);
  assert.deepEqual([host, headers], [B, { Authorization: "Bearer secret" }]);
  feed.cut();
  await world.pass(1000);
  assert.equal(world.sockets.at(-1).host, B); // a good engine is kept
});

scenario("without the option the feed stays with its engine", async (world) => {
  const feed = await connected(world, { nodes: undefined });
  await drain(world, `http://${B}`);
  assert.deepEqual([world.sockets.map(({ host }) => host), feed.state.state], [[HOME, HOME], "connected"]);
  assert.equal(world.times("/v1/nodes").length, 0);
});

for (const [url, target] of [
  [`https://${HOME}`, `http://${B}`],
  [`https://${HOME}`, `ws://${B}`],
  [`http://${HOME}`, `https://${B}`],
  [`http://${HOME}`, `http://user:word@${B}`],
  [`http://${HOME}`, "//b.example"],
  [`http://${HOME}`, "javascript:alert(1)"],
  [`http://${HOME}`, "http://"],
  [`http://${HOME}`, 7],
]) {
  scenario(`at ${url} the feed is not sent to ${target}`, async (world) => {
    const feed = await connected(world, { url, token: "secret" });
    world.routes["/v1/tickets"] = () => new Response('{"ticket":"x"}');
    await drain(world, target);
    assert.equal(feed.state.state, "connected");
    assert.deepEqual(new Set(world.asked.map(([, , host]) => host)), new Set([HOME]));
  });
}

scenario("if the other engine cannot be reached the feed returns to the given URL", async (world) => {
  const feed = await connected(world);
  world.down.add(B);
  await drain(world, `http://${B}`);
  assert.deepEqual(world.sockets.map(({ host }) => host), [HOME, B, HOME]);
  assert.deepEqual([feed.state.state, feed.transport.name], ["connected", "websocket"]);
});

scenario("engines that send clients to and fro are followed three times a minute", async (world) => {
  const feed = await connected(world);
  for (let i = 0; i < 8; i++) await drain(world, `http://${i % 2 ? HOME : B}`, 1500);
  assert.deepEqual(world.sockets.map(({ host }) => host).slice(0, 5), [HOME, B, HOME, B, B]);
  assert.equal(feed.state.state, "connected");
  await world.pass(60_000);
  await drain(world, `http://${C}`);
  assert.equal(world.sockets.at(-1).host, C);
});

scenario("the feed begins on the engine with the most room that is ready", async (world) => {
  const bad = [null, 7, row(C, 0, { url: 3 }), row(C, 0, { url: "https://c.example" }), row(C, 0, { state: "draining" })];
  world.routes["/v1/nodes"] = rows(...bad, row(HOME, 50), row(B, 20), row(C, 30), row("d.example", 0, { capacity: 0 }));
  const feed = await connected(world);
  assert.deepEqual([world.sockets.map(({ host }) => host), feed.state.state], [[B], "connected"]);
  assert.equal(world.times("/v1/nodes").length, 1);
});

scenario("an engine that does not answer /v1/nodes is used itself", async (world) => {
  world.routes["/v1/nodes"] = () => refusal(404, "not found");
  const feed = await connected(world);
  assert.deepEqual([world.sockets.map(({ host }) => host), feed.state.state], [[HOME], "connected"]);
});

scenario("when engines die the feed goes on with those that are left", async (world) => {
  world.routes["/v1/nodes"] = rows(row(HOME, 0), row(B, 20), row(C, 30));
  const feed = await connected(world);
  assert.equal(world.sockets.at(-1).host, HOME);
  for (const host of [HOME, B]) {
    world.down.add(host);
    world.sockets.at(-1).end(1006);
    await world.pass(8000);
    assert.equal(feed.state.state, "connected", host);
  }
  assert.deepEqual(world.sockets.at(-1).host, C);
  world.down.clear();
  world.down.add(C);
  world.sockets.at(-1).end(1006);
  await world.pass(8000);
  assert.equal(world.sockets.at(-1).host, HOME);
  assert.equal(feed.told.some((m) => m.T === "reset"), false);
});

scenario("the stream of an alert consumer begins on the engine of the feed", async (world) => {
  world.routes["/v1/nodes"] = rows(row(HOME, 50), row(B, 20));
  const feed = await connected(world);
  world.routes["/v1/nodes"] = rows(row(HOME, 0), row(C, 1));
  feed.alerts({ consumer: "desk" }, () => {});
  await world.pass(1000);
  assert.deepEqual(world.sockets.map(({ host }) => host), [B, B]);
});

scenario("two feeds choose for themselves", async (world) => {
  world.routes["/v1/nodes"] = rows(row(B, 1));
  await connected(world);
  world.routes["/v1/nodes"] = rows(row(C, 1));
  await connected(world);
  assert.deepEqual(world.sockets.map(({ host }) => host), [B, C]);
});
