// A feed as a program: prints each message as a line of JSON, and runs the statements that come as lines.
// node feed.mjs MODULE MODULES URL OPTIONS
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [module, modules, url, given] = process.argv.slice(2);
const { connect } = await import(pathToFileURL(module));
const { subscribe, token: tokens, socket = true, inflate: compress, nodes: cluster, ...options } = JSON.parse(given);
if (socket) options.WebSocket = createRequire(modules + "/")("ws");
const tell = (message) => console.log(JSON.stringify(message));
if (compress) {
  const { inflate } = await import(new URL("inflate.js", pathToFileURL(module)));
  globalThis.inflated = { frames: 0, bytes: 0, characters: 0 };
  options.inflate = async (frame) => {
    const text = await inflate(frame);
    inflated.frames++;
    inflated.bytes += frame.byteLength;
    inflated.characters += text.length;
    return text;
  };
}
if (cluster) Object.assign(options, await import(new URL("nodes.js", pathToFileURL(module))));
// A list of tokens: one after the other, as a function of a program would return them.
if (Array.isArray(tokens)) {
  options.token = (refused) => {
    tell({ T: "token", refused });
    const next = tokens.length > 1 ? tokens.shift() : tokens[0];
    if (next === "throw") throw new Error("no network");
    return next;
  };
} else if (tokens) options.token = tokens;
const feed = connect(url, options);
let reset = null; // of an epoch, which is told before the epoch
feed.on("message", (m) => {
  if (m.T === "reset" && m.cause === "epoch") return void (reset = m);
  if (m.T === "epoch") {
    tell({ T: "connected", epoch: m.epoch });
    if (reset) tell(reset);
    reset = null;
    return;
  }
  tell(m);
});
if (subscribe) feed.subscribe(subscribe, () => {});
const input = createInterface({ input: process.stdin });
const Statement = Object.getPrototypeOf(async () => {}).constructor;
input.on("line", (line) => {
  new Statement("feed", "tell", JSON.parse(line))(feed, tell).catch((error) =>
    tell({ T: "failed", error: String(error), code: error.code }),
  );
});
