import sys
import time

import numpy as np

from marketfeed import QUOTE
from marketfeed.client import publisher

with publisher(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8770") as out:
    quotes = np.zeros(2, QUOTE)
    quotes["symbol"] = out.announce(["EUR-USD", "GBP-USD"])  # ids of our own; the engine maps them to its own
    quotes["bid_sz"], quotes["ask_sz"] = 1_000_000, 2_000_000  # 0: this side is missing
    price = 1_100_000_000  # units of 1e-9
    for step in range(1, 100_000):
        price += (-10_000, 10_000)[step % 2]
        quotes["bid_px"], quotes["ask_px"] = price - 5_000, price + 5_000
        quotes["ts_event"] = time.time_ns()  # of the venue; leave ts_recv 0: it becomes the time of arrival
        out.quotes(quotes)
        out.trade("EUR-USD", price=price / 1e9, size=500_000, side="b", trade_id=step)
        out.drain()  # waits while the engine is away, or slower than we are
        time.sleep(0.01)
