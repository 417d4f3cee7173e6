"""The pictures of the page in docs/: every view at 1280 and 390 px, light and dark.

    python -m perf.screenshots                    # those of docs/
    python -m perf.screenshots --all --out build  # every view in all four forms

    perf/market.py ──► engine ──► one page, a minute later ──► PNG of 256 colours

Takes two minutes, because the sparklines show the last one.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from PIL import Image

from perf import servers
from perf.market import Market
from tests.support.chromium import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONFIG: Final = """
[gateway]
port = 0
[admin]
port = {admin}
[latency]
interval_s = 2.0
[[feeds]]
name = "venues"
type = "push"
listen = "127.0.0.1:{venues}"
[[feeds]]
name = "otc"
type = "push"
listen = "127.0.0.1:{otc}"
[[alerts.rules]]
name = "jump"
type = "move"
severity = "warning"
percent = 0.25
window_s = 5.0
cooldown_s = 20.0
[[alerts.rules]]
name = "wide"
type = "spread"
symbols = ["DOGE-USD", "XRP-USD", "ADA-USD"]
severity = "info"
bps = 1.0
min_duration_s = 1.0
cooldown_s = 15.0
[[alerts.rules]]
name = "otc_down"
type = "feed_down"
symbols = ["otc"]
severity = "critical"
after_s = 5.0
"""
SETTLE_S: Final = 70.0  # for full sparklines
SILENCE_S: Final = 24.0  # until `quiet` and `stale` show
SCALE: Final = 2
HEIGHTS: Final = {1280: 800, 390: 844}
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
VIEWS: Final = {
    "watch": "watch", "symbol": "watch/BTC-USD", "tiers": "tiers/ETH-EUR", "latency": "latency",
    "alerts": "alerts", "connection": "connection", "access": "access",
}  # fmt: skip
# What docs/ holds: view, width, scheme.
KEPT: Final = {
    *product(["watch"], HEIGHTS, SCHEMES),
    ("symbol", 1280, "dark"), ("symbol", 390, "light"), ("tiers", 1280, "light"), ("tiers", 390, "dark"),
    ("latency", 1280, "dark"), ("latency", 390, "light"), ("alerts", 1280, "light"), ("alerts", 390, "dark"),
    ("connection", 1280, "dark"), ("connection", 390, "light"), ("access", 1280, "light"),
}  # fmt: skip


def prepare(page: Page, name: str) -> None:
    """Do what a person would have done before."""
    if name == "alerts":
        page.get_by_label("Acknowledge as consumer").fill("desk-1")
        page.get_by_label("If it is new").select_option("all")
        page.get_by_role("button", name="Take alerts").click()
        page.get_by_role("button", name="Acknowledge ").first.wait_for()
        page.get_by_role("button", name="Acknowledge ").last.click()
    elif name == "connection":
        page.get_by_role("button", name="Pull the plug").click()
        page.wait_for_function(
            "() => ['live', 'bad', 'warn'].includes(document.querySelector('#verdict').dataset.tone)"
        )
    page.mouse.move(0, 0)


def picture(page: Page, path: Path) -> int:
    """Write what the page shows, in 256 colours; return the size in bytes."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.stat().st_size


def shoot(page: Page, address: str, out: Path, everything: bool) -> None:
    """Take the pictures of all views."""
    for name, view in VIEWS.items():
        page.goto(f"{address}#{view}")
        prepare(page, name)
        page.wait_for_timeout(14_000 if name == "tiers" else 500)
        for width, scheme in product(HEIGHTS, SCHEMES):
            if not everything and (name, width, scheme) not in KEPT:
                continue
            page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
            page.emulate_media(color_scheme=scheme)
            page.evaluate("() => document.querySelector('.view:not([hidden])').scrollTo(0, 0)")
            page.wait_for_timeout(1200)
            path = out / f"page-{name}-{width}-{scheme}.png"
            print(f"{path.name}: {picture(page, path) / 1000:.0f} kB")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        prog="python -m perf.screenshots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=servers.ROOT / "docs")
    parser.add_argument("--all", action="store_true", help="every view in all four forms")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds before the first picture")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ports = {name: servers.free_port() for name in ("admin", "venues", "otc")}
    with tempfile.TemporaryDirectory(prefix="marketfeed-perf-") as folder:
        config = Path(folder) / "config.toml"
        config.write_text(CONFIG.format(**ports))
        argv = [sys.executable, "-m", "marketfeed", "serve", "--config", str(config)]
        with servers.process(argv, Path(folder)) as server, chromium() as browser:
            market = Market(f"127.0.0.1:{ports['venues']}", f"127.0.0.1:{ports['otc']}")
            market.start()
            address = f"http://localhost:{server.port}/"
            page = browser.new_page(viewport={"width": 1280, "height": 800}, device_scale_factor=SCALE)
            page.goto(address)
            time.sleep(max(0.0, options.settle - SILENCE_S))
            market.pause.set()
            time.sleep(SILENCE_S)
            shoot(page, address, options.out, options.all)
            market.end.set()
            market.join()


if __name__ == "__main__":
    main()
