"""Clients are told apart by their SDK, and nobody can make labels without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.gateway.clients import MOST_SDKS, NO_SDK, OTHER_SDK, Sdks


@pytest.mark.parametrize(
    ("agent", "label"),
    [
        ("marketfeed-cli/0.1.0", "marketfeed-cli/0.1.0"),
        ("marketfeed-js/12.3 (Firefox)", "marketfeed-js/12.3"),
        ("marketfeed-py/2;x", "marketfeed-py/2"),
        (None, NO_SDK),
        ("", NO_SDK),
        ("curl/8.1", NO_SDK),
        ("x marketfeed-py/1", NO_SDK),
        ("marketfeed-py/1.2.3.4", NO_SDK),
        ("marketfeed-py/1-beta", NO_SDK),
        ('marketfeed-py/1"', NO_SDK),
        ("marketfeed-PY/1", NO_SDK),
    ],
)
def test_an_sdk_is_its_name_and_version(agent, label):
    assert Sdks().label(agent) == label


@given(st.lists(st.text(max_size=60)))
def test_whatever_strangers_send_is_no_sdk_or_one_of_few(agents):
    sdks = Sdks()
    for number in range(3 * MOST_SDKS):
        sdks.label(f"marketfeed-x/{number}")
    labels = {sdks.label(agent) for agent in [*agents, "marketfeed-x/7777", "marketfeed-x/1"]}
    assert labels <= {NO_SDK, OTHER_SDK, "marketfeed-x/1"}
