// In a browser. Server-Sent Events; no library needed.
let last = ""; // the cursor, opaque: a new EventSource resumes where the previous one stopped
function open() {
  const after = last && `&after=${encodeURIComponent(last)}`;
  const events = new EventSource(`http://127.0.0.1:8765/v1/events?quotes=SY00*&tier=basic${after}`);
  events.onmessage = (event) => {
    last = event.lastEventId;
    for (const message of JSON.parse(event.data)) {
      if (message.T === "q") console.log(message.S, message.bp, message.ap);
    }
  };
  events.onerror = () => {
    // EventSource reconnects by itself after a cut, but not after an answer such as 502 from a proxy.
    if (events.readyState === EventSource.CLOSED) setTimeout(open, 2000 * (0.5 + Math.random()));
  };
}
open();
