"""``marketfeed alerts`` beside a running engine: each change goes through the engine that holds the log."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import closing

import pytest
from typer.testing import CliRunner

from marketfeed.cli import app
from tests.support.process import engine

pytestmark = pytest.mark.e2e

# The rule is raised at once and stays so.
CONFIG = """
[alerts]
enabled = true
max_tries = 1
[[feeds]]
name = "demo"
type = "synthetic"
symbols = ["A"]
rate = 100
[[alerts.rules]]
name = "tight"
type = "spread"
absolute = 1e-9
"""


class Beside:
    """An engine, and commands about it: by its configuration, or by URL."""

    def __init__(self, running, folder):
        self.running, self.folder = running, folder

    def __call__(self, *arguments, url=None):
        """Run a command; return its exit status and output."""
        where = ["--set", f"alerts.path={self.folder / 'var' / 'alerts.db'}"]
        if url is None:
            ports = (self.running.port, self.running.admin_port)
            for option, port in zip(("gateway.port", "admin.port"), ports, strict=True):
                where += ["--set", f"{option}={port}"]
        else:
            where = ["--url", url]
        done = CliRunner().invoke(app, ["alerts", *arguments, *where])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    def list(self, *arguments):
        """Return the lines of a list that is read from the log."""
        log = ["--json", "--log", str(self.folder / "var" / "alerts.db")]
        done = CliRunner().invoke(app, ["alerts", *arguments, *log])
        assert (done.exit_code, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.running.port}"

    @property
    def admin_url(self):
        return f"http://127.0.0.1:{self.running.admin_port}"

    def ask(self, method, path, body=None):
        """Make a request of a consumer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=30)) as connection:
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    with engine(CONFIG, folder) as running:
        yield Beside(running, folder)


def until(look):
    """Return the first true result of ``look()``."""
    deadline_s = time.monotonic() + 30
    while not (found := look()):
        assert time.monotonic() < deadline_s
    return found


def joined(beside, consumer):
    """Create a consumer that has had nothing."""
    status, _ = beside.ask("GET", f"/v1/alerts?consumer={consumer}&alerts=notice&start=now&timeout_s=0")
    assert status == 204


def raised(beside):
    return until(lambda: beside.list("list", "--rule", "tight"))[0]


@pytest.mark.parametrize("by_url", [False, True])
def test_a_published_notice_is_acknowledged_by_a_consumer(beside, by_url):
    name = f"desk-{by_url}"
    joined(beside, name)
    got = []

    def consume():
        status, answer = beside.ask("GET", f"/v1/alerts?consumer={name}&alerts=notice&timeout_s=30")
        got.append((status, [one["msg"] for one in answer["alerts"]]))
        ids = [one["id"] for one in answer["alerts"]]
        beside.ask("POST", "/v1/alerts/ack", {"consumer": name, "alerts": ids})

    consumer = threading.Thread(target=consume)
    consumer.start()
    options = ["--to", name, "--wait-ack", "--timeout", "30", "--key", name]
    status, out, err = beside("publish", "stop", *options, url=beside.url if by_url else None)
    consumer.join(30)
    assert (got, status, err) == ([(200, ["stop"])], 0, "")
    assert out.startswith(f"acknowledged by {name}: ")
    # The same key again: it was acknowledged already.
    assert beside("publish", "stop", *options)[:2] == (status, out)


def test_a_notice_that_is_not_acknowledged_remains_queued(beside):
    joined(beside, "late")
    options = ["--key", "k2", "--to", "late"]
    status, out, err = beside("publish", "stop", *options, "--wait-ack", "--timeout", "0")
    assert (status, out) == (1, "")
    assert err.startswith("marketfeed: still queued: late has not acknowledged it within 0 s; id ")
    assert err.endswith("; to wait again, publish it with --key k2\n")
    (found,) = beside.list("list", "--rule", "notice")[-1:]
    assert (found["key"], found["to"]) == ("k2", "late")
    status, out, _ = beside("ack", "late", found["id"], "NOPE")
    assert (status, out.splitlines()[0]) == (0, f"acknowledged {found['id']}")
    assert beside("ack", "late", found["id"])[0] == 1
    assert beside("publish", "stop", *options, "--wait-ack")[0] == 0


@pytest.mark.parametrize("by_url", [False, True])
def test_an_episode_is_resolved_in_the_engine(beside, by_url):
    key = raised(beside)["key"]
    status, out, err = beside("resolve", key, "--by", "ann", "--json", url=beside.url if by_url else None)
    assert (status, err) == (0, "")
    assert (json.loads(out)["key"], json.loads(out)["by"]) == (key, "ann")


def test_dead_letters_are_delivered_again_to_a_consumer_that_is_dropped_then(beside):
    joined(beside, "deaf")
    assert beside("publish", "listen", "--to", "deaf", "--key", "k3")[0] == 0
    poll = "/v1/alerts?consumer=deaf&alerts=notice&timeout_s=30"
    (alert,) = beside.ask("GET", poll)[1]["alerts"]
    (letter,) = until(lambda: beside.list("dead", "--consumer", "deaf"))
    assert (letter["id"], letter["tries"]) == (alert["id"], 1)
    status, out, err = beside("requeue", "deaf", "--by", "ann", url=beside.admin_url)
    assert (status, out, err) == (0, f"requeued {alert['id']}\n", "")
    assert beside.ask("GET", poll)[1]["alerts"] == [alert]

    rows = [json.loads(line) for line in beside("consumers", "--json")[1].splitlines()]
    (row,) = [row for row in rows if row["consumer"] == "deaf"]
    assert (row["state"], row["sessions"], row["alerts"]) == ("live", 1, ["notice"])
    assert beside("consumers", url=beside.admin_url)[1].splitlines()[0].split()[:2] == ["consumer", "state"]
    assert beside("consumers", "drop", "deaf", "--yes")[:2] == (0, "dropped deaf\n")
    status, out, err = beside("consumers", "drop", "deaf", "--yes", url=beside.admin_url)
    assert (status, out, err) == (2, "", "marketfeed: no consumer 'deaf'\n")


@pytest.mark.parametrize("by_url", [False, True])
def test_a_silence_begins_and_ends_in_the_engine(beside, by_url):
    url = beside.url if by_url else None
    options = ["--rule", "none*", "--for", "1h", "--comment", "upgrade", "--by", "ann"]
    status, out, err = beside("silence", *options, "--json", url=url)
    silence = json.loads(out)
    assert (status, err, silence["state"], silence["rules"]) == (0, "", "active", ["none*"])

    def seen():
        found = {one["id"]: one for one in beside.ask("GET", "/v1/alerts/silences")[1]["silences"]}
        return found[silence["id"]]

    assert seen() == silence
    assert silence in beside.list("silences")
    assert beside("silence", "--expire", silence["id"], url=url)[:2] == (0, f"ended {silence['id']}\n")
    assert seen()["state"] == "expired"
    assert silence["id"] not in {one["id"] for one in beside.list("silences")}
    status, _, err = beside("silence", "--expire", silence["id"], url=url)
    assert (status, err) == (2, f"marketfeed: no silence '{silence['id']}' that ends later than now\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["resolve", "NOPE"], "no episode has the key 'NOPE'"),
        (["publish", "x", "--symbol", "A,B"], "S: not a symbol: 'A,B'"),
        (["publish", "x", "--to", "a b"], "a consumer's name must be 1 to 64 printable ASCII characters"),
    ],
)
def test_a_refusal_of_the_engine_is_one_line(beside, arguments, line):
    status, out, err = beside(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"marketfeed: {line}")
    assert err.count("\n") == 1


def test_who_gives_the_url_of_the_other_port_is_told_which_one_it_is(beside):
    for arguments, url, line in (
        (["requeue", "deaf"], beside.url, f"{beside.url} is not the admin port of an engine"),
        (["consumers"], beside.url, f"{beside.url} is not the admin port of an engine"),
        (["publish", "x"], beside.admin_url, f"{beside.admin_url} is not the gateway of an engine"),
    ):
        status, out, err = beside(*arguments, url=url)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"marketfeed: {line}")
