"""``alerts tail``: what it prints, when it acknowledges, and when it comes back to the engine or gives up."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import trio
import typer
from rich.console import Console

from marketfeed.cli import alerts_follow, alerts_tail
from marketfeed.cli.alerts_follow import Follower, Subscription
from marketfeed.cli.piped import wait_reader_gone
from marketfeed.client import acknowledgements, for_commands, subscriptions
from marketfeed.client.address import endpoint, stream_of
from tests.support.scripts import ID, Script

AT_US = 1_700_000_000_000_000
LIVE = {"T": "subscription", "quotes": [], "trades": [], "alerts": ["*"], "tier": "vip", "encoding": "json"}
LIVE["id"] = ID
ALL = Subscription(("*",))
DESK = Subscription(("*",), "desk", acknowledge=True)


def alert(number=1, **more: Any) -> dict[str, Any]:
    own = f"01JDQ3M4R5XW8K2B7N6T9V0{number:03}"
    fields: dict[str, Any] = {
        "T": "a",
        "id": own,
        "key": own,
        "rule": "wide",
        "S": "A",
        "sev": "warning",
        "state": "raised",
    }
    fields |= {"v": 62.1, "th": 50.0, "t": 0, "r": AT_US, "msg": f"number {number}", "try": 1, "ack": True}
    return {**fields, "suppressed": 0, **more}


def acknowledged(played):
    return [asked["alerts"] for asked in played.requests if asked["action"] == "ack"]


@pytest.fixture
async def serve(nursery, monkeypatch):
    monkeypatch.setattr(for_commands, "RETRY_S", (0.0, 0.0))
    monkeypatch.setattr(subscriptions, "REPEAT_S", 0.0)
    monkeypatch.setattr(acknowledgements, "REPEAT_S", 0.0)

    async def start(*scripts):
        return await Script(scripts).start(nursery)

    return start


async def follow(played, wanted=ALL, **more):
    return await Follower(endpoint(played.url), wanted, **more).run()


@pytest.mark.parametrize(
    ("wanted", "more"),
    [
        (ALL, {}),
        (Subscription(("a", "b*"), "desk"), {"consumer": "desk", "start": "now"}),
        (Subscription(("*",), "desk", True, True), {"consumer": "desk", "start": "all"}),
    ],
)
async def test_it_subscribes_on_each_connection_and_ends_with_a_final_code(serve, capsys, wanted, more):
    played = await serve(("?", [LIVE], 4001), ("?", 4503))
    assert await follow(played, wanted) == 1
    patterns = {"alerts": list(wanted.patterns), "encoding": "json"}
    assert played.requests == [{"action": "subscribe", **patterns, **more}] * 2
    assert capsys.readouterr().err.splitlines() == [
        "marketfeed alerts tail: closed 4001 (so), reconnecting",
        "marketfeed alerts tail: closed 4503: so",
    ]


async def test_an_alert_is_one_line_as_list_prints_it(serve, capsys):
    again = alert(2, rule="wider", sev="critical", **{"try": 3})
    played = await serve(("?", [LIVE], [alert(), again], 4500))
    assert await follow(played) == 1
    time = "2023-11-14T22:13:20.000Z"
    assert capsys.readouterr().out.splitlines() == [
        f"{time}  warning   raised   wide  A  number 1  01JDQ3M4R5XW8K2B7N6T9V0001",
        f"{time}  critical  raised   wider  A  number 2  try 3  01JDQ3M4R5XW8K2B7N6T9V0002",
    ]


async def test_json_has_the_names_of_list(serve, capsys):
    notice = alert(2, state="notice", data={"order": 17}, to="desk", v=None, th=None, later="a new key")
    played = await serve(("?", [LIVE], [alert(ack=False), notice], 4500))
    assert await follow(played, as_json=True) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "id": alert()["id"], "key": alert()["id"], "rule": "wide", "symbol": "A", "severity": "warning",
        "state": "raised", "value": 62.1, "threshold": 50.0, "t_ns": 0, "r_ns": AT_US * 1000,
        "message": "number 1", "suppressed": 0,
    }  # fmt: skip
    assert (second["state"], second["data"], second["to"], second["try"]) == (
        "notice",
        {"order": 17},
        "desk",
        1,
    )


async def test_json_is_exact_and_safe_for_terminals(serve, capsys):
    data = {"k\0\u202e": "\x9b31m", "big": 2**100, "float": 1.0, "empty": {}}
    frame = json.dumps([alert(1, key="a\0b", data=data), alert(2, data={}), alert(3)], ensure_ascii=False)
    played = await serve(["?", [LIVE], frame, 4500])
    await follow(played, as_json=True)
    out = capsys.readouterr().out
    first, second, third = map(json.loads, out.splitlines())
    assert (first["key"], first["data"], repr(first["data"]["float"])) == ("a\0b", data, "1.0")
    assert second["data"] == {}
    assert "data" not in third
    assert out.replace("\n", "").isprintable()


async def test_without_ack_nothing_is_acknowledged(serve, capsys):
    played = await serve(("?", [LIVE], [alert()], 4500))
    assert await follow(played, Subscription(("*",), "desk")) == 1
    assert acknowledged(played) == []


async def test_what_was_printed_is_acknowledged_one_request_at_a_time(serve, capsys):
    one, two, three = (alert(number)["id"] for number in (1, 2, 3))
    played = await serve(
        (
            *("?", [LIVE], [alert(1), alert(2)], "?"),
            *([alert(3)], [alert(1, **{"try": 2})]),  # before the answer
            *([{"T": "acked", "alerts": [one, two], "id": ID}], "?"),
            *([{"T": "acked", "alerts": [three], "id": ID}], 4500),
        )
    )
    assert await follow(played, DESK) == 1
    assert acknowledged(played) == [[one, two], [three]]
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("code", [429, 500])
async def test_an_acknowledgement_that_the_engine_cannot_take_is_repeated(serve, capsys, code):
    own = alert()["id"]
    error = {"T": "error", "code": code, "msg": "not now", "id": ID}
    played = await serve(
        ("?", [LIVE], [alert()], "?", [error], "?", [{"T": "acked", "alerts": [own], "id": ID}], 4500)
    )
    assert await follow(played, DESK) == 1
    assert acknowledged(played) == [[own], [own]]


async def test_after_a_lost_connection_it_acknowledges_what_it_has_printed_and_prints_it_once(serve, capsys):
    own = alert()["id"]
    played = await serve(
        ("?", [LIVE], [alert()], "?", 4001),
        ("?", [alert(**{"try": 2})], [LIVE], "?", [{"T": "acked", "alerts": [own], "id": ID}], 4500),
    )
    assert await follow(played, DESK) == 1
    assert acknowledged(played) == [[own], [own]]
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ({"code": 410, "msg": "alerts are off", "id": ID}, "error 410: alerts are off"),
        ({"code": 409, "msg": "it was dropped"}, "error 409: it was dropped"),
        ({"code": 400, "msg": "bad ids", "id": ID}, "error 400: bad ids"),
    ],
)
async def test_a_refusal_ends_it(serve, capsys, error, said):
    played = await serve(("?", [{"T": "error", **error}], 1000))
    assert await follow(played) == 1
    assert capsys.readouterr().err == f"marketfeed alerts tail: {said}\n"


async def test_a_log_that_cannot_be_read_now_is_told_and_tried_again(serve, capsys):
    error = {"T": "error", "code": 500, "msg": "no log", "id": ID}
    played = await serve(("?", [error], "?", [LIVE], [alert()], 4500))
    assert await follow(played) == 1
    assert len(played.requests) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0] == "marketfeed alerts tail: error 500: no log"
    assert len(shown.out.splitlines()) == 1


async def test_an_announced_end_is_told_once_and_its_delay_is_kept(serve, autojump_clock, capsys):
    closing = {"T": "closing", "code": 1001, "msg": "bye", "retry_ms": 2000}
    played = await serve(("?", [LIVE], [closing], 1001), ("?", 4500))
    before_s = trio.current_time()
    assert await follow(played) == 1
    assert trio.current_time() - before_s >= 2
    assert capsys.readouterr().err.splitlines() == [
        "marketfeed alerts tail: closing 1001: bye, reconnecting",
        "marketfeed alerts tail: closed 4500: so",
    ]


async def test_what_is_no_marketfeed_is_told_in_a_line(serve, capsys):
    played = await serve(("?", "1", 4500))
    assert await follow(played) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "does not speak marketfeed's protocol" in line


@pytest.mark.parametrize(
    "frame",
    [
        "[1]", '[{"S":"A"}]', '[{"T":"a"}]', [alert(r="x")], [{"T": "closing", "code": "x", "msg": "y"}],
        [alert(id=7)], [{"T": "of a later version"}],
    ],
)  # fmt: skip
async def test_messages_that_it_does_not_understand_are_passed_over_and_that_is_told(serve, capsys, frame):
    played = await serve(("?", frame, [alert()], 4500))
    assert await follow(played) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert shown.err.splitlines() == [
        "marketfeed alerts tail: passed over messages of the engine that this version does not understand",
        "marketfeed alerts tail: closed 4500: so",
    ]


@pytest.mark.parametrize("r", [10**18, 10**30])
async def test_a_time_that_is_none_ends_it_in_a_line(serve, capsys, r):
    played = await serve(("?", [alert(r=r)], 4500))
    assert await follow(played) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("an alert with a time or number that is none")


async def test_a_severity_of_a_later_version_is_shown(serve, capsys):
    played = await serve(("?", [alert(sev="loud", state="muted")], 4500))
    assert await follow(played) == 1
    assert "  loud      muted " in capsys.readouterr().out


async def test_nothing_that_a_server_sends_reaches_the_terminal_as_control(serve, capsys):
    odd = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202e"
    texts = {"id": f"1{odd}", "key": odd, "rule": odd, "S": odd, "msg": odd}
    closing = {"T": "closing", "code": 1001, "msg": odd}
    played = await serve(("?", [{"T": "heartbeat", "t": 1}], [alert(**texts), closing], 1001), ("?", 4500))
    assert await follow(played) == 1
    shown = "".join(capsys.readouterr())
    assert not any(sequence in shown for sequence in ("\x1b", "\x9b", "\x07", "\u202e"))
    assert "owned" in shown


async def test_a_terminal_gets_colours(serve, monkeypatch):
    played = await serve(("?", [LIVE], [alert()], 4500))
    console = Console(force_terminal=True, soft_wrap=True, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    monkeypatch.setattr(alerts_follow, "console_on", lambda file: console)
    assert await follow(played) == 1
    console.file.close()
    assert "\x1b[33mwarning" in console.export_text(styles=True)


async def test_an_engine_that_is_not_there_is_told_in_a_line(capsys):
    with trio.socket.socket() as closed:
        await closed.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{closed.getsockname()[1]}/v1/stream"
        assert await Follower(endpoint(url), ALL).run() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"marketfeed alerts tail: cannot connect to {url}: connection refused")


def test_the_engine_of_a_changed_configuration_is_followed_and_the_hint_is_that_of_help(capsys):
    with pytest.raises(typer.Exit):
        alerts_tail.tail(set_=["gateway.port=1"])
    said = capsys.readouterr().err
    assert said.startswith("marketfeed alerts tail: cannot connect to ws://127.0.0.1:1/v1/stream: ")
    assert said.endswith("for an engine at another address, use --url http://HOST:PORT\n")


async def test_the_end_of_a_pipe_is_noticed_without_a_write():
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_reader_gone, file)
            await trio.testing.wait_all_tasks_blocked()
            assert nursery.child_tasks
            os.close(ours)


async def test_what_is_no_pipe_has_no_end(tmp_path, autojump_clock):
    with (tmp_path / "file").open("w") as file, trio.move_on_after(1) as scope:
        await wait_reader_gone(file)
    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ack": True}, "--ack: needs --consumer NAME, since a live view keeps nothing"),
        ({"from_start": True}, "--from-start: needs --consumer NAME, since a live view keeps nothing"),
        ({"rule": ["a b"]}, "--rule a b: a pattern is the name of a rule"),
        ({"consumer": "a b"}, "--consumer a b: a consumer's name must be 1 to 64"),
        ({"url": "nowhere"}, "--url nowhere: must be http://HOST:PORT, or https:// with TLS"),
        ({"url": "http://127.0.0.1:8765", "ca": "ca.pem"}, "--ca ca.pem: requires an https:// or wss:// URL"),
    ],
)
def test_mistakes_are_one_line(capsys, options, said):
    with pytest.raises(typer.Exit) as caught:
        alerts_tail.tail(**options)
    assert caught.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"marketfeed: {said}")


@pytest.mark.parametrize(
    ("url", "stream"),
    [
        ("ws://h:1/v1/stream", "ws://h:1/v1/stream"),
        ("wss://h/feed", "wss://h/feed"),
        ("http://h:1", "ws://h:1/v1/stream"),
        ("https://h/", "wss://h/v1/stream"),
        ("https://h/feed", "wss://h/feed/v1/stream"),
        ("http://h:1/v1/stream", "ws://h:1/v1/stream"),
    ],
)
def test_the_url_of_the_engine_gives_that_of_its_stream(url, stream):
    assert stream_of(url) == stream
