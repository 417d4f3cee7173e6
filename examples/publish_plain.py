import json
import socket
import struct
import sys
import time

# version 1, kind, flags 0, payload bytes, when sent (ns since the Unix epoch)
HEADER = struct.Struct("<BBHIQ")
SYMBOLS, QUOTES = 1, 2  # kinds; 3: trades, 5: heartbeat, without payload
QUOTE = struct.Struct("<qqQqqddIHBB")
assert QUOTE.size == 64


def frame(kind, payload):
    return HEADER.pack(1, kind, 0, len(payload), time.time_ns()) + payload


host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8770").rsplit(":", 1)
with socket.create_connection((host, int(port))) as engine:
    engine.sendall(frame(SYMBOLS, json.dumps({"XAU-USD": 7}).encode()))
    for _ in range(100_000):
        quote = QUOTE.pack(
            time.time_ns(),  # ts_event: the venue's time, ns since the Unix epoch
            0,  # ts_recv: the engine fills it in
            0,  # g: left 0
            2_650_120_000_000,  # bid price, units of 1e-9
            2_650_380_000_000,  # ask price
            12.5,  # bid size; 0: no bid
            8.0,  # ask size
            0,  # n: left 0
            7,  # symbol: an id that was announced
            0,  # feed: left 0
            0,  # flags: left 0
        )
        engine.sendall(frame(QUOTES, quote))
        time.sleep(0.01)
