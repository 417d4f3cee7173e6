import time

import numpy as np

import marketfeed

tap = marketfeed.tap("tap.sock")
print(tap)  # <Tap live epoch=9f2c… symbols=1000 head=123456>

# The newest quote of every symbol, as columns. Prices are integers, in units of 1e-9.
quotes = tap.latest("*")
quotes = quotes[(quotes["bid_sz"] > 0) & (quotes["ask_sz"] > 0)]  # both sides present
mid = (quotes["bid_px"] + quotes["ask_px"]) / 2e9
spread_bps = (quotes["ask_px"] - quotes["bid_px"]) / 1e9 / mid * 1e4
low, median, high = np.percentile(spread_bps, [10, 50, 90])
print(f"spread of {len(quotes)} symbols, bps: {low:.2f} {median:.2f} {high:.2f} (10 %, median, 90 %)")
widest = tap.name(quotes["symbol"][spread_bps.argmax()])
print(f"widest: {widest} with {spread_bps.max():.2f} bps")

# What the ring holds of one symbol: up to ring_depth quotes, oldest first.
past = tap.read(widest, last=500)
seconds = (past["ts_recv"][-1] - past["ts_recv"][0]) / 1e9
print(f"{widest}: {len(past)} quotes in {seconds:.1f} s")

# A rolling mid of every symbol, from every quote as it comes. A symbol's ticks are
# numbered without holes, so n % WINDOW says where in its window a quote belongs.
WINDOW = 64
mids = np.full((tap.rings.max_symbols, WINDOW), np.nan)
last = np.full(tap.rings.max_symbols, np.nan)
lost, until = 0, time.monotonic() + 2
for step in tap.follow("*", ["quotes"], timeout_s=0.5):
    new = step.quotes
    both = (new["bid_sz"] > 0) & (new["ask_sz"] > 0)  # a missing side has size 0, and no price
    mid = np.where(both, (new["bid_px"] + new["ask_px"]) / 2e9, np.nan)
    mids[new["symbol"], new["n"] % WINDOW] = mid
    last[new["symbol"][both]] = mid[both]
    lost += sum(gap.lost for gap in step.gaps)
    if time.monotonic() > until:
        break
seen = ~np.isnan(mids).all(axis=1)
rolling = np.nanmean(mids[seen], axis=1)
print(
    f"{seen.sum()} symbols moved, {lost} quotes lost; furthest from its rolling mid: "
    f"{tap.name(np.flatnonzero(seen)[abs(last[seen] / rolling - 1).argmax()])}"
)

tap.close()
