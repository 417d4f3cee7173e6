// Subscribes by node's `ws`, prints each frame's messages as a line, and ends after so many ticks or a close.
import { createRequire } from "node:module";

const [modules, url, request, ticks] = process.argv.slice(2);
const WebSocket = createRequire(modules + "/")("ws");
let left = Number(ticks);
const ws = new WebSocket(url);
ws.on("open", () => ws.send(request));
ws.on("message", (data) => {
  console.log(data.toString());
  left -= JSON.parse(data).filter((m) => (m.T === "q" || m.T === "t") && !m.snap).length;
  if (left <= 0) ws.close(1000);
});
ws.on("close", (code) => console.log(JSON.stringify([{ T: "closed", code }])));
