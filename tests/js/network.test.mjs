// marketfeed.js when the network changes, is weak, blocks, or goes mute.
import assert from "node:assert/strict";
import { INFO, connection, events, later, network, polls, refusal, scenario } from "./world.mjs";

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

scenario("polls that wait in vain stay polls", async (world) => {
  world.blocked = true;
  world.routes["/v1/events"] = () => refusal(502, "blocked");
  world.routes["/v1/poll"] = polls((answer) => later(25_000, () => answer(204)));
  const feed = world.connect({ retryMs: [100, 200] });
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(200_000);
  assert.equal(feed.transport.name, "poll");
});

scenario("the engine's clock is taken from a second answer if the first one is slow", async (world) => {
  let answers = 0;
  world.routes["/v1/engine"] = () => later(80, () => new Response(JSON.stringify({ ...INFO, now: ++answers * 1e15 })));
  const feed = world.connect();
  feed.subscribe({ quotes: ["*"] }, () => {});
  await world.pass(1000);
  const [info, ...more] = feed.told.filter((m) => m.T === "engine");
  assert.deepEqual([info.now, more], [2e15, []]);
});
