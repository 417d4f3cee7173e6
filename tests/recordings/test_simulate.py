"""Simulations: figures equal a brute-force count over the same ticks, at any phase."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from itertools import islice

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfeed.cli.recordings import format_of
from marketfeed.cli.what_if import changed_tiers
from marketfeed.config.schema import TierConfig
from marketfeed.core.binary import quotes_frame, symbols_frame, trades_frame
from marketfeed.core.records import QUOTE, TRADE
from marketfeed.core.units import MS
from marketfeed.errors import ConfigError
from marketfeed.fanout.interest import Names
from marketfeed.fanout.tiers import Tier
from marketfeed.ingest.registry import feed_specs
from marketfeed.recordings.simulate import Plan, Progress, simulate
from marketfeed.testing import RecordingIntake

ALL = Names(("*",), ("*",))
START_NS = 1_723_161_254_000_000_000


def plan(folder, path, tiers, **more):
    (spec,) = feed_specs([{"type": "replay", "path": path, "format": format_of(folder / path)}])
    return Plan(spec, folder, {tier.name: tier for tier in tiers}, more.pop("names", ALL), **more)


def latest(name, interval_ms):
    return Tier(name, int(interval_ms * MS), False, 65536)


async def published(spec, folder):
    """Replay on a virtual clock; return each batch's time in ns and its (channel, symbol) pairs."""
    intake = RecordingIntake(base=folder)
    await spec.factory(spec.settings, intake).run(intake.publish)
    found = []
    for at, batch in zip(intake.published_at_s, intake.batches, strict=True):
        pairs = [(c, s) for c, r in enumerate((batch.quotes, batch.trades)) for s in r["symbol"].tolist()]
        found.append((round(at * 1e9), pairs))
    return found


def by_hand(batches, started_ns, tier, phase):
    """Count what a session of a latest tier receives, without the engine's code."""
    offset = phase * tier.interval_ns // tier.phases
    delivered, total, waiting, due = 0, 0, set(), None
    for at, pairs in batches:
        now = started_ns + at
        if due is not None and now > due:
            delivered += len(waiting)
            waiting = set()
        due = now + (offset - now) % tier.interval_ns
        waiting |= set(pairs)
        total += len(pairs)
    delivered += len(waiting)
    return delivered, total - delivered


def check(folder, path, tiers, phases):
    wanted = plan(folder, path, tiers, chosen=phases)
    result = simulate(wanted)
    clock = trio.testing.MockClock(autojump_threshold=0)
    batches = trio.run(published, wanted.feed, folder, clock=clock)
    for tier in tiers:
        outcome = result.tiers[tier.name]
        assert outcome.matched == sum(len(pairs) for _, pairs in batches)
        assert outcome.lost == 0
        if tier.every:
            assert (outcome.delivered, outcome.conflated) == (outcome.matched, 0)
            continue
        counts = [by_hand(batches, result.started_ns, tier, phase) for phase in phases[tier.name]]
        assert outcome.delivered == sum(d for d, _ in counts) / len(counts)
        assert outcome.conflated == sum(c for _, c in counts) / len(counts)
        assert 0 <= outcome.delay_ms["p50"] <= outcome.delay_ms["p99"] <= outcome.delay_ms["max"]
        assert outcome.delay_ms["max"] <= tier.interval_ns / 1e6
    return result


@pytest.mark.slow
def test_a_real_recording_is_what_counting_by_hand_says_at_every_phase(realdata, tmp_path):
    with gzip.open(realdata / "binance_raw_ws/usdm_btcusdt_20240808.gz") as file:
        (tmp_path / "day.txt").write_bytes(b"".join(islice(file, 6000)))
    tiers = [
        Tier("vip", 0, True, 65536),
        latest("premium", 100),
        latest("odd", 37),
        Tier("all", 250 * MS, True, 65536),
    ]
    result = check(
        tmp_path, "day.txt", tiers, {"premium": [0, 7, 19], "odd": [0, 3], "vip": [0], "all": [11]}
    )
    assert result.took_s < result.recorded_s
    assert result.tiers["vip"].delay_ms["max"] == 0
    assert result.tiers["all"].json_bytes < result.tiers["vip"].json_bytes
    assert result.tiers["all"].frames < result.tiers["vip"].frames


moments = st.lists(
    st.tuples(st.integers(0, 1_000_000), st.integers(0, 4), st.booleans()), min_size=1, max_size=60
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(moments, st.integers(5, 700), st.data())
def test_any_recording_is_what_counting_by_hand_says(tmp_path, ticks, interval_ms, data):
    tier = latest("slow", interval_ms)
    phase = data.draw(st.integers(0, tier.phases - 1))
    frames = [symbols_frame({f"S{i}": i for i in range(5)}, 1)]
    for number, (at, symbol, trade) in enumerate(sorted(ticks)):
        record = np.zeros(1, TRADE if trade else QUOTE)
        record["ts_recv"], record["symbol"], record["g"] = START_NS + at * 1000, symbol, number + 1
        frames.append((trades_frame if trade else quotes_frame)(record, number + 2))
    (tmp_path / "day.mfr").write_bytes(b"".join(frames))
    check(tmp_path, "day.mfr", [tier], {"slow": [phase]})


def test_only_what_is_asked_for_is_delivered(tmp_path):
    records = np.zeros(3, QUOTE)
    records["ts_recv"], records["symbol"] = START_NS, [0, 1, 1]
    (tmp_path / "day.mfr").write_bytes(symbols_frame({"A": 0, "B": 1}, 1) + quotes_frame(records, 2))
    tiers = [Tier("vip", 0, True, 65536)]
    for names, count in ((Names(("A",)), 1), (Names(("B*",)), 2), (Names((), ("*",)), 0)):
        assert simulate(plan(tmp_path, "day.mfr", tiers, names=names)).tiers["vip"].delivered == count


def test_it_can_be_interrupted_and_is_the_same_each_time(tmp_path):
    records = np.zeros(300, QUOTE)
    records["ts_recv"], records["symbol"] = START_NS + np.arange(300) * 1_234_567, np.arange(300) % 7
    names = {f"S{number}": number for number in range(7)}
    (tmp_path / "day.mfr").write_bytes(symbols_frame(names, 1) + quotes_frame(records, 2))
    wanted = plan(tmp_path, "day.mfr", [Tier("vip", 0, True, 65536), latest("slow", 50)])

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(wanted, Progress(tell=interrupt))
    told = []
    first = simulate(
        wanted, Progress(tell=lambda progress: told.append((progress.done, progress.total))), True
    )
    assert told[-1] == (300, 300)
    assert simulate(wanted).tiers == first.tiers


def test_changes_start_from_the_tier_as_configured():
    configured = {"premium": TierConfig(interval_ms=100, delivery="latest", send_buffer_bytes=5000)}
    found = changed_tiers(
        configured, ["premium.interval_ms=250", "fast.interval_ms=20", "fast.delivery=latest"]
    )
    assert found == {
        "premium": TierConfig(interval_ms=250, delivery="latest", send_buffer_bytes=5000),
        "fast": TierConfig(interval_ms=20, delivery="latest"),
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("premium", "must be NAME.KEY=VALUE"),
        ("premium=3", "must be NAME.KEY=VALUE"),
        ("premium.interval=3", "--tier premium.interval: unknown key; did you mean interval_ms?"),
        ("premium.interval_ms=-3", "--tier premium.interval_ms: must be a number from 0 to 3600000, not -3"),
        ("premium.interval_ms=0.5", "--tier premium.interval_ms: must be 0, or from 1 to 3600000, not 0.5"),
        ("premium.delivery=all", '--tier premium.delivery: must be one of "every", "latest", not'),
    ],
)
def test_a_change_that_is_none_is_told_in_a_line(change, said):
    with pytest.raises(ConfigError) as caught:
        changed_tiers({"premium": TierConfig()}, [change])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.mfr", "marketfeed"), ("a.b.mfr.zst", "marketfeed"), ("a.dbn.zst", "dbn"), ("a.csv.gz", "csv"),
        ("a.zip", "csv"), ("a.parquet", "parquet"), ("btc_2024.gz", "binance-raw"),
    ],
)  # fmt: skip
def test_a_files_name_tells_its_format(tmp_path, name, format):
    assert format_of(tmp_path / name) == format


# The command `simulate`.


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "marketfeed", "simulate", *arguments],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture
def day(tmp_path):
    (tmp_path / "day.csv").write_text("".join(f"{10 * i},1.{i:05},2\n" for i in range(200)))
    (tmp_path / "config.toml").write_text(
        '[[feeds]]\nname = "fx"\ntype = "replay"\nformat = "csv"\npath = "other.csv"\nsymbol = "EUR/USD"\n'
        'time = "ms"\nday = "2014-05-08"\ncolumns = { time = 0, bid = 1, ask = 2 }\n'
    )
    return tmp_path


@pytest.mark.e2e
def test_the_command_shows_tiers_as_configured_and_as_they_might_be(day):
    done = command(day, "day.csv", "--feed", "fx", "--tier", "premium.interval_ms=200", "--phases", "1")
    assert done.returncode == 0, done.stderr
    for text in ("as configured", "what if", "change", "latest 100 ms", "latest 200 ms", "-50.0 %"):
        assert text in done.stdout


@pytest.mark.e2e
def test_a_tier_that_is_not_configured_is_simulated_and_told_to_be_new(day):
    done = command(day, "day.csv", "--feed", "fx", "--tier", "premum.interval_ms=200", "--phases", "1")
    assert done.returncode == 0
    assert (
        done.stderr
        == "note: --tier premum: simulated as a new tier; the configured tiers are vip, premium, basic\n"
    )
    assert "premum" in done.stdout
    assert command(day, "day.csv", "--feed", "fx", "--tier", "vip.interval_ms=5").stderr == ""


@pytest.mark.e2e
def test_the_command_speaks_json(day):
    done = command(
        day, "day.csv", "--feed", "fx", "--tier", "premium.interval_ms=200", "--json", "--phases", "1"
    )
    told = json.loads(done.stdout)
    assert told["quotes"] == 200
    assert told["tiers"]["vip"]["what_if"] is None
    premium = told["tiers"]["premium"]
    assert premium["configured"]["delivered"] == 20
    assert premium["what_if"]["delivered"] == 10
    assert premium["what_if"]["conflated"] == 190


@pytest.mark.e2e
def test_names_that_the_recording_does_not_have_are_told_and_status_1(day):
    names = ["--symbols", "EUR/USD", "--symbols", "eurusd", "--symbols", "X*"]
    done = command(day, "day.csv", "--feed", "fx", "--phases", "1", *names)
    assert done.returncode == 1
    assert done.stderr == (
        "--symbols eurusd: the recording has no such symbol; did you mean EUR/USD?\n"
        "--symbols X*: the recording has no symbol with this prefix\n"
    )
    assert "as configured" in done.stdout
    done = command(day, "day.csv", "--feed", "fx", "--phases", "1", "--json", *names)
    assert json.loads(done.stdout)["unknown"] == ["eurusd", "X*"]


@pytest.mark.e2e
def test_a_title_is_a_line_of_its_own_however_narrow_the_table(day):
    (day / "one.csv").write_text("0,1.1,2\n" + "10,1.2,2\n" * 6 + "2000,1.3,2\n")
    done = command(day, "one.csv", "--feed", "fx", "--phases", "1")
    title, top, *_ = done.stdout.splitlines()
    assert title.startswith("one.csv: 8 quotes, 0 trades, 1 symbol, 2.0 s in ")
    assert title.endswith(" ticks/s")
    assert top.startswith("┏")


@pytest.mark.e2e
def test_figures_in_json_have_no_noise_of_floating_point(day):
    (day / "one.csv").write_text("0,1.1,2\n" + "10,1.2,2\n" * 6 + "1900,1.3,2\n")
    text = command(day, "one.csv", "--feed", "fx", "--json").stdout
    told = json.loads(text)
    assert told["recorded_s"] == 1.9
    numbers = re.findall(r"[\d.]+(?=,?\n)", text)
    assert numbers
    assert all(len(number.partition(".")[2]) <= 6 and not number.endswith(".0") for number in numbers)
    for figures in (tier["configured"] for tier in told["tiers"].values()):
        assert isinstance(figures["matched"], int)
        assert isinstance(figures["interval_ms"], int)


@pytest.mark.e2e
def test_it_says_how_fast_it_ran(day):
    done = command(day, "day.csv", "--feed", "fx", "--phases", "1")
    assert re.search(
        r"2\.0 s in [\d.,]+ s: [\d.,]+ × real time, [\d,]+ ticks/s", " ".join(done.stdout.split())
    )
    found = json.loads(command(day, "day.csv", "--feed", "fx", "--phases", "1", "--json").stdout)
    assert found["pace"] == pytest.approx(found["recorded_s"] / found["took_s"])
    assert found["ticks_per_s"] == pytest.approx(200 / found["took_s"])


@pytest.mark.e2e
def test_names_of_files_and_tiers_are_shown_as_they_are(day):
    (day / "[red]\x1b[31m.csv").write_text((day / "day.csv").read_text())
    new = "[b]new\x1b.interval_ms=200"
    done = command(day, "[red]\x1b[31m.csv", "--feed", "fx", "--tier", new, "--phases", "1")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "[red]\\x1b[31m.csv" in " ".join(done.stdout.split())
    assert "[b]new\\x1b" in done.stdout


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["day.csv"], "columns: csv needs to know its columns"),
        (["none.gz"], "none.gz: No such file or directory"),
        (["day.csv", "--feed", "no"], "--feed no: config.toml has no feed of this name and type replay"),
        (["day.csv", "--feed", "fx", "--tier", "vip"], "--tier vip: must be NAME.KEY=VALUE"),
        (["day.csv", "--feed", "fx", "--symbols", "a b"], "--symbols a b: must be a symbol, a prefix"),
        (["day.csv", "--format", "xml"], "format: 'xml' is not one of"),
    ],
)
def test_mistakes_are_one_line_and_status_2(day, arguments, said):
    done = command(day, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("marketfeed: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
