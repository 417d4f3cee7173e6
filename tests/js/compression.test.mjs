// Compressed frames in marketfeed.js. FRAMES: by name, frames of the engine in base64, written by test_compression.py.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { INFO, scenario } from "./world.mjs";

const { inflate } = await import(pathToFileURL(process.env.INFLATE));
const { whole, broken, bombs, ticks } = JSON.parse(readFileSync(process.env.FRAMES));
const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64")).buffer;
const NAMES = { quotes: ["*"], tier: "premium" };
const quote = (n) => ({ T: "q", S: "A", n, g: n, r: 1 });
const numbers = (feed) => feed.told.filter(({ T }) => T === "q").map(({ n }) => n);
const asked = (socket) => socket.sent.filter(({ compress }) => compress);
// Decompression takes real time, which the clock of the world does not count.
const until = async (world, done) => {
  for (let i = 0; !done(); i++) {
    assert.ok(i < 2000);
    await world.pass(1);
  }
};
const connected = async (world, options = {}) => {
  const feed = world.connect({ inflate, retryMs: [100, 200], ...options });
  feed.subscribe(NAMES, () => {});
  await world.pass(1000);
  return [feed, world.sockets.at(-1)];
};
// A decompressor that takes `ms` of the clock.
const slow = (ms) => async (frame) => {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return inflate(frame);
};

test("frames of the engine are inflated to what they hold", async () => {
  for (const [text, frame] of whole) assert.equal(await inflate(bytes(frame)), text);
});

test("a frame that is damaged is rejected", async () => {
  for (const [what, frame] of broken) await assert.rejects(inflate(bytes(frame)), Error, what);
});

test("a frame that holds more than 1 MiB is rejected", async () => {
  for (const frame of bombs) await assert.rejects(inflate(bytes(frame)), /holds more than 1 MiB/);
});

scenario("compressed and other frames are handled in their order, and the close after them", async (world) => {
  const [feed, socket] = await connected(world);
  const sent = [];
  for (const [first, last, frame] of ticks) {
    socket.onmessage({ data: bytes(frame) });
    socket.put(quote(last + 1));
    socket.put(quote(last + 2));
    for (let n = first; n <= last + 2; n++) sent.push(n);
  }
  socket.end(1006, "gone");
  assert.deepEqual(numbers(feed), []);
  await until(world, () => feed.told.some(({ T }) => T === "disconnected"));
  const end = feed.told.findIndex(({ T }) => T === "disconnected");
  assert.deepEqual(numbers({ told: feed.told.slice(0, end) }), sent);
  assert.equal(feed.told[end].reason, "gone");
  assert.equal(feed.told.filter(({ T }) => T === "gap").length, 0);
  await world.pass(1000);
  assert.equal(world.sockets.at(-1).sent[0].after, `e:${sent.at(-1)}`);
});

scenario("a connection with frames that wait is not mute", async (world) => {
  const [feed, socket] = await connected(world, { inflate: slow(60_000) });
  socket.onmessage({ data: bytes(ticks[0][2]) });
  socket.put(quote(ticks[0][1] + 1));
  await world.pass(59_000); // pongs come, and wait
  assert.deepEqual([numbers(feed), feed.state.state, world.sockets.length], [[], "connected", 1]);
  await world.pass(2000);
  await until(world, () => numbers(feed).length);
  assert.equal(numbers(feed).at(-1), ticks[0][1] + 1);
  assert.equal(world.sockets.length, 1);
});

scenario("frames that wait when the connection is cut are dropped, and come again after the cursor", async (world) => {
  const [feed, socket] = await connected(world, { inflate: slow(500) });
  socket.put({ ...quote(ticks[0][0] - 1), snap: 1 });
  await world.pass(10);
  socket.onmessage({ data: bytes(ticks[0][2]) });
  socket.put(quote(ticks[0][1] + 1));
  socket.end(1006);
  await world.pass(10);
  feed.cut();
  await world.pass(3000);
  assert.deepEqual(numbers(feed), [ticks[0][0] - 1]);
  assert.deepEqual([feed.state.state, world.sockets.length, world.sockets[1].sent[0].after], ["connected", 2, "e:1"]);
});

for (const [what, frames] of [["bomb", bombs], ["damaged frame", broken.map(([, frame]) => frame)]]) {
  scenario(`a ${what} ends the connection with 1002, and the next resumes`, async (world) => {
    const [feed] = await connected(world);
    for (const frame of frames) {
      const socket = world.sockets.at(-1);
      const before = feed.told.length;
      socket.onmessage({ data: bytes(frame) });
      socket.put(quote(1e6));
      const ended = () => feed.told.slice(before).find(({ T }) => T === "disconnected");
      await until(world, ended);
      assert.equal(ended().code, 1002);
      await until(world, () => feed.told.slice(before).some(({ T }) => T === "synced"));
      assert.equal(world.sockets.at(-1).sent[0].after, "e:1");
    }
    assert.deepEqual(numbers(feed), []);
  });
}

scenario("compression is asked for on each tier with an interval, and again after a cut", async (world) => {
  const [feed, socket] = await connected(world, { tier: "premium" });
  const tiers = () => feed.told.filter(({ T }) => T === "tier").map(({ tier }) => tier);
  assert.deepEqual(asked(socket).map(({ quotes, tier }) => [quotes, tier]), [[undefined, undefined]]);
  for (const [tier, count] of [["vip", 1], ["premium", 2], ["basic", 3], ["vip", 3]]) {
    feed.setTier(tier);
    await world.pass(500);
    assert.deepEqual([tiers().at(-1), asked(socket).length], [tier, count]);
  }
  feed.setTier("premium");
  await world.pass(500);
  feed.cut();
  await world.pass(1000);
  assert.equal(asked(world.sockets.at(-1)).length, 1);
  assert.equal(feed.told.filter(({ T }) => T === "error").length, 0);
});

scenario("a tier that is slower while the link is weak asks for it, and the fast one does not", async (world) => {
  const feed = world.connect({ inflate });
  feed.subscribe({ quotes: ["*"], tier: "vip" }, () => {});
  await world.pass(1000);
  const [socket] = world.sockets;
  socket.put({ T: "lag", on: true });
  await world.pass(100);
  assert.deepEqual([feed.tier, asked(socket).length], ["premium", 1]);
  await world.pass(45_000);
  assert.deepEqual([feed.tier, asked(socket).length, world.sockets.length], ["vip", 1, 1]);
});

scenario("an engine that refuses compression changes nothing else", async (world) => {
  world.refuse = ({ compress }) => compress && { code: 400, msg: "compress: needs encoding json and a tier with an interval" };
  const [feed, socket] = await connected(world);
  socket.put(quote(1));
  await world.pass(60_000);
  assert.deepEqual([feed.tier, numbers(feed), asked(socket).length], ["premium", [1], 1]);
  assert.equal(feed.told.filter(({ T }) => T === "error" || T === "disconnected").length, 0);
});

scenario("compression is asked for as soon as the tiers are known", async (world) => {
  const ready = new Promise((resolve) => setTimeout(resolve, 2500));
  world.routes["/v1/engine"] = () => ready.then(() => new Response(JSON.stringify(INFO)));
  const [, socket] = await connected(world);
  assert.equal(asked(socket).length, 0);
  await world.pass(2000);
  assert.equal(asked(socket).length, 1);
});

for (const options of [{ inflate: undefined }, { encoding: "binary" }]) {
  scenario(`compression is not asked for with ${JSON.stringify(options)}`, async (world) => {
    const [, socket] = await connected(world, options);
    await world.pass(30_000);
    assert.equal(asked(socket).length, 0);
  });
}
