# pip install websockets
import asyncio
import json

import websockets


async def main():
    async for ws in websockets.connect("ws://127.0.0.1:8765/v1/stream", max_size=None):
        try:
            await ws.send(json.dumps({"action": "subscribe", "quotes": ["SY0000", "SY01*"], "tier": "vip"}))
            async for frame in ws:
                for message in json.loads(frame):
                    if message["T"] == "q":
                        print(message["S"], message["bp"], message["ap"])  # None: this side is missing
        except websockets.ConnectionClosed:
            if (ws.close_code or 0) >= 4500:  # permanent: the same request would be refused again
                raise
            # after any other close code the loop reconnects


asyncio.run(main())
