"""A trio program that only sleeps until each quote is due: trio's part of a quiet engine's CPU."""

import sys
import time

import trio


async def main() -> None:
    """Print the CPU in µs of one sleep; arguments: quotes per second, seconds."""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    count = int(rate * seconds)
    began_s, used_s = trio.current_time(), time.process_time()
    for number in range(1, count + 1):
        await trio.sleep_until(began_s + number / rate)
    print(1e6 * (time.process_time() - used_s) / count)


trio.run(main)
