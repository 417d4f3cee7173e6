"""socketify (uWebSockets, C++): one topic per symbol, one ``publish`` per quote; it batches writes."""

import asyncio
import json

from socketify import App, OpCode, WebSocket

from perf.engines.feed import INTERVAL_S, Feed, arguments

PORT, RATE, UNIVERSE = arguments()
BACKPRESSURE_BYTES = 64 << 20  # uWebSockets drops messages beyond this; the search stops on latency earlier

app = App()


def on_message(session: WebSocket, message: str, opcode: OpCode) -> None:
    for name in json.loads(message)["quotes"]:
        session.subscribe(name)


async def publish() -> None:
    feed, topics = Feed(RATE, UNIVERSE), [f"SY{symbol:04d}" for symbol in range(UNIVERSE)]
    while True:
        for symbol, message in feed.due():
            app.publish(topics[symbol], message, OpCode.TEXT)
        await asyncio.sleep(INTERVAL_S)


def begin() -> None:
    app.loop.run_async(publish())


app.ws(
    "/*",
    {
        "compression": 0,
        "max_payload_length": 1 << 20,
        "idle_timeout": 120,
        "max_backpressure": BACKPRESSURE_BYTES,
        "message": on_message,
    },
)
app.on_start(begin)
app.listen({"port": PORT, "host": "127.0.0.1"}, lambda listening: print("ready", flush=True))
app.run()
