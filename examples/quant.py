# Cells of a notebook; `python quant.py` runs them as a script. pip install pandas
# %%
import time

import numpy as np
import pandas as pd

import marketfeed

# %% Two seconds of quotes, every one, as they came: arrays of the dtype marketfeed.QUOTE, without a copy.
feed = marketfeed.stream("http://127.0.0.1:8765", quotes=["SY00*"], tier="vip", encoding="binary")
parts, until = [], time.monotonic() + 2
for batch in feed.batches():
    parts.append(batch.quotes)
    for message in batch.messages:  # Gap, Lag or Reset: what is missing, if anything is
        print(message)
    if time.monotonic() > until:
        break

# %% Spreads by numpy. Prices are integers in units of 1e-9; a side of size 0 is missing.
quotes = np.concatenate(parts)
quotes = quotes[(quotes["bid_sz"] > 0) & (quotes["ask_sz"] > 0)]
mid = (quotes["bid_px"] + quotes["ask_px"]) / 2e9
spread_bps = (quotes["ask_px"] - quotes["bid_px"]) / 1e9 / mid * 1e4
print(f"{len(quotes)} quotes, spread {np.median(spread_bps):.2f} bps in the median")

# %% The same by pandas: volatility of each symbol, from mids of 100 ms.
frame = pd.DataFrame({"mid": mid, "symbol": batch.names(quotes["symbol"])})
frame.index = pd.to_datetime(quotes["ts_recv"], utc=True)
bars = frame.groupby("symbol")["mid"].resample("100ms").last().ffill()
print(np.log(bars).groupby("symbol").diff().groupby("symbol").std().nlargest(5))

# %% The newest quote of each symbol, and the end.
print(feed.frame()[["symbol", "bid_px", "ask_px"]].head())
feed.close()
