import socket
import sys
import time

import numpy as np

from marketfeed import QUOTE, TRADE
from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame

host, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8770").rsplit(":", 1)
ids = {"EUR-USD": 0, "GBP-USD": 1}  # ids of our own; the engine maps them to its symbols
with socket.create_connection((host, int(port))) as engine:
    engine.sendall(symbols_frame(ids, time.time_ns()))  # before the first record that has one of the ids
    price = 1_100_000_000  # units of 1e-9
    for step in range(1, 100_000):
        now_ns = time.time_ns()
        price += (-10_000, 10_000)[step % 2]
        quotes, trades = np.zeros(2, QUOTE), np.zeros(1, TRADE)
        quotes["symbol"] = [0, 1]
        quotes["ts_event"] = now_ns  # the venue's time; leave ts_recv 0, and it is that of the arrival
        quotes["bid_px"], quotes["ask_px"] = price - 5_000, price + 5_000
        quotes["bid_sz"], quotes["ask_sz"] = 1_000_000, 2_000_000  # 0: this side is missing
        trades["symbol"], trades["ts_event"], trades["price"], trades["size"] = 0, now_ns, price, 500_000
        trades["side"], trades["trade_id"] = ord("b"), step  # the aggressor: b, s or -
        engine.sendall(quotes_frame(quotes, now_ns) + trades_frame(trades, now_ns))
        time.sleep(0.01)
