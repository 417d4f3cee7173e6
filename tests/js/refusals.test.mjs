// marketfeed.js when the engine refuses requests, or what comes is broken.
import assert from "node:assert/strict";
import { INFO, events, later, makeStream, network, polls, refusal, scenario, stream } from "./world.mjs";

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

scenario("a session that lags and is closed comes back when the engine says", async (world) => {
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  world.sockets[0].put({ T: "lag", on: true }, { T: "closing", code: 1001, msg: "shutdown", retry_ms: 4000 });
  world.sockets[0].end(1001);
  await world.pass(250);
  assert.deepEqual([feed.state.code, feed.state.reason, feed.state.retryMs], [1001, "shutdown", 4000]);
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

scenario("a request for the alerts of a consumer that is never answered is repeated", async (world) => {
  world.routes["/v1/poll"] = polls((answer) => later(25_000, () => answer(204)));
  let asked = 0;
  const alert = { T: "a", rule: "wide", id: "1", msg: "m" };
  world.routes["/v1/alerts"] = () =>
    ++asked === 2 ? new Response(JSON.stringify({ alerts: [alert] })) : new Promise(() => {});
  const feed = world.connect({ transport: "poll", retryMs: [100, 200] });
  const got = [];
  feed.alerts({ consumer: "desk" }, (m) => got.push(m.id));
  await world.pass(70_000);
  assert.deepEqual(got, ["1"]);
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

scenario("what goes wrong and nobody listens for is on the console", async (world) => {
  world.refuse = ({ tier }) => tier === "gold" && { code: 400, msg: "no tier gold" };
  const said = [];
  const error = console.error;
  console.error = (text) => said.push(text);
  try {
    const feed = world.connect();
    feed.subscribe({ quotes: ["*"], tier: "gold" }, () => {});
    await world.pass(2000);
    feed.on("error", () => {});
    feed.subscribe({ quotes: ["A"], tier: "gold" }, () => {});
    await world.pass(2000);
  } finally {
    console.error = error;
  }
  assert.deepEqual(said, ["no tier gold"]);
});

scenario("a request that fails says why, not only that it failed", async (world) => {
  world.blocked = true;
  const refused = new Error("connect ECONNREFUSED 127.0.0.1:9");
  world.routes["/v1/events"] = () => Promise.reject(new TypeError("fetch failed", { cause: refused }));
  const feed = world.connect({ transport: "events" });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  assert.equal(feed.state.reason, "connect ECONNREFUSED 127.0.0.1:9");
});
