"""What is guessed for a mistyped word, and that nothing far-fetched is."""

from __future__ import annotations

import pytest

from marketfeed.config.guesses import guess


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("prot", ("host", "port", "hosts"), "port"),
        ("prot", ("pro", "port"), "pro"),
        ("interval", ("delivery", "interval_ms"), "interval_ms"),
        ("origins", ("hosts", "allowed_origins"), "allowed_origins"),
        ("jsn", ("binary", "json"), "json"),
        ("Workers", ("workers",), "workers"),
        ("priceScale", ("price_scale",), "price_scale"),
        ("gatway", ("gateway", "latency"), "gateway"),
        ("synth", ("synthetic", "push"), "synthetic"),
        ("path", ("auth", "gateway"), ""),
        ("time", ("tiers", "limits"), ""),
        ("gold", ("vip", "premium", "basic"), ""),
        ("x", ("xy", "a"), ""),
        ("", ("a",), ""),
        ("xyz", (), ""),
    ],
)
def test_only_what_is_close_is_guessed(word, known, meant):
    assert guess(word, known) == (f"; did you mean {meant}?" if meant else "")
