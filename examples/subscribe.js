// In a browser. Pages from other origins must be listed in gateway.allowed_origins.
let pause_ms = 250;
function open() {
  const ws = new WebSocket("ws://127.0.0.1:8765/v1/stream");
  ws.onopen = () => ws.send(JSON.stringify({ action: "subscribe", quotes: ["SY00*"], tier: "basic" }));
  ws.onmessage = (event) => {
    pause_ms = 250;
    for (const message of JSON.parse(event.data)) {
      if (message.T === "q") console.log(message.S, message.bp, message.ap);
    }
  };
  ws.onclose = (event) => {
    if (event.code >= 4500) return console.error(event.code, event.reason); // permanent: do not reconnect
    setTimeout(open, pause_ms * (0.5 + Math.random()));
    pause_ms = Math.min(2 * pause_ms, 10000);
  };
}
open();
