"""Reader process of test_tap.py: follows a tap and reports on stdout in lines of JSON.

python tap_reader.py PATH
"""

import json
import sys

import numpy as np

import marketfeed
from marketfeed.errors import EngineGoneError


def say(**what):
    print(json.dumps(what), flush=True)


with marketfeed.tap(sys.argv[1]) as tap:
    say(epoch=tap.epoch, head=tap.head())
    ticks, lost, next_g = 0, 0, None
    follower = tap.follow("*")
    try:
        for step in follower:
            stamps = np.sort(np.concatenate([step.quotes["g"], step.trades["g"]]))
            if len(stamps):
                # All symbols and both channels are followed, so g has no holes except lost ticks.
                holes = int(
                    (np.diff(stamps.astype(np.int64), prepend=int(next_g or stamps[0]) - 1) != 1).sum()
                )
                next_g = int(stamps[-1]) + 1
            ticks += len(stamps)
            lost += sum(gap.lost for gap in step.gaps)
            say(ticks=ticks, lost=lost, holes=holes, names=len(tap.names()))
    except EngineGoneError as gone:
        say(gone=str(gone), ticks=ticks, readable=len(tap.latest()))
