"""``marketfeed probe`` against a real engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from marketfeed.latency import load
from tests.support.admin_client import get
from tests.support.process import Engine, engine

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 5\nrate = 500\n'


def probe(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "probe", *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def until_subscribed(running: Engine) -> None:
    """Wait until the engine has sent the probe's session some ticks."""
    while True:
        shown = json.loads(get(running.admin_port, "/v1/sessions")[2])["shown"]
        ledgers = [ledger for row in shown for ledger in row["ledger"].values()]
        if any(ledger["delivered"] > 50 for ledger in ledgers):
            return


def test_a_probe_measures_each_tier_says_what_and_writes_a_log(tmp_path: Path) -> None:
    with engine(CONFIG, tmp_path) as running:
        tiers = ["--tier", "vip", "--tier", "premium=100", "--seconds", "2"]
        done = probe(running.url, "SY0000", *tiers, "--out", "probe.hlog", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        title, head, vip, premium = done.stdout.splitlines()
        assert title.startswith(f"{running.url}, 2 s: latency from the engine's receipt of a tick")
        assert head.split()[:3] == ["tier", "ticks", "p50"]
        assert (vip.split()[0], premium.split()[0]) == ("vip", "premium")
        table = load(tmp_path / "probe.hlog", by=("hop", "tier")).groupby("tier")["count"].sum()
        assert table["vip"] == int(vip.split()[1].replace(",", ""))
        assert table["premium"] >= int(premium.split()[1])  # corrected for what was omitted
        refused = probe(running.url, "SY0000", "--tier", "nope", "--seconds", "1", cwd=tmp_path)
        assert refused.returncode == 2
        assert refused.stderr == "marketfeed: nope: error 400: tier: one of vip, premium, basic, not 'nope'\n"


def test_ctrl_c_ends_a_probe_with_what_it_measured_so_far(tmp_path: Path) -> None:
    with engine(CONFIG, tmp_path) as running:
        argv = [sys.executable, "-m", "marketfeed", "probe", running.url, "SY0000", "--seconds", "600"]
        with subprocess.Popen(
            [*argv, "--out", "probe.hlog"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            try:
                until_subscribed(running)
            finally:
                child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=30)
        assert (child.returncode, err) == (0, "")
        assert "from the engine's receipt of a tick" in out
        assert (tmp_path / "probe.hlog").read_text().startswith("#")


def test_names_without_ticks_are_told(tmp_path: Path) -> None:
    with engine(CONFIG, tmp_path) as running:
        done = probe(running.url, "NOPE", "--seconds", "1", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-2:] == [
            "no ticks of NOPE arrived: does a feed send them?",
            "NOPE: the engine has no such symbol",
        ]
        done = probe(running.url, "SY0000", "sy0001", "--seconds", "1", cwd=tmp_path)
        assert done.returncode == 0
        assert done.stdout.splitlines()[-1].startswith(
            "sy0001: the engine has no such symbol; did you mean SY0001"
        )


def test_mistakes_and_an_engine_that_is_not_there_are_one_line(tmp_path: Path) -> None:
    for arguments, said in (
        (["ws://127.0.0.1:1/v1/stream", "A", "--seconds", "1"], "refused"),
        (["ftp://127.0.0.1:1/", "A"], "must be http://"),
        (
            ["ws://127.0.0.1:1/", "A", "--tier", "premium=soon"],
            "--tier premium=soon: must be a tier such as vip, or with its interval in ms",
        ),
        (["ws://127.0.0.1:1/", "A", "--interruption", "long"], "'long' is not a duration"),
    ):
        done = probe(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
