"""The ``marketfeed`` command as a shell sees it: exit status, stdout and stderr."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from marketfeed import __version__

pytestmark = pytest.mark.e2e


class Command:
    """The command in a folder of its own, with ``config`` as its config.toml if there is one."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, *arguments, config=None):
        if config is not None:
            (self.folder / "config.toml").write_text(config)
        return subprocess.run(
            [sys.executable, "-m", "marketfeed", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def marketfeed(tmp_path):
    return Command(tmp_path)


def told(done):
    """Return the one line that a run which could not begin left on stderr."""
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_the_version(marketfeed):
    done = marketfeed("--version")
    assert (done.returncode, done.stdout) == (0, f"marketfeed {__version__}\n")


@pytest.mark.parametrize("command", ["serve", "watch"])
def test_help_shows_examples(marketfeed, command):
    done = marketfeed(command, "--help")
    assert done.returncode == 0
    assert f"marketfeed {command} " in done.stdout
    assert "--config" in done.stdout


def test_check_says_what_would_be_served(marketfeed):
    done = marketfeed("serve", "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "config ok: the built-in configuration, 1 feed, 3 tiers\n"


def test_check_takes_set_and_config(marketfeed, tmp_path):
    (tmp_path / "other.toml").write_text("[tiers.vip]\n")
    done = marketfeed("serve", "--config", "other.toml", "--set", "limits.ping_s=5", "--check")
    assert done.stdout == "config ok: other.toml, 0 feeds, 1 tier\n"


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ("[gateway]\nprot = 1\n", "marketfeed: config.toml: gateway.prot: unknown key; did you mean port?"),
        (
            '[[feeds]]\ntype = "nyse"\n',
            'marketfeed: config.toml: feeds.0.type: unknown feed type "nyse"; one of ',
        ),
        (
            '[[feeds]]\ntype = "synthetic"\nrate = -1\n',
            "marketfeed: config.toml: feeds.0.rate: must be a number above 0, at most 5000000, not -1",
        ),
        (
            '[[feeds]]\ntype = "synthetic"\nsymbols = []\n',
            "marketfeed: config.toml: feeds.0.symbols: at least one name",
        ),
        (
            '[gateway]\nhost = "0.0.0.0"\n',
            'marketfeed: config.toml: gateway.host: "0.0.0.0" is not loopback',
        ),
        ("[engine\n", "marketfeed: config.toml: not TOML:"),
        (
            '[[feeds]]\ntype = "synthetic"\nsymbols = 20000\n',
            "marketfeed: config.toml: feeds.0.symbols: 20000 are too many: engine.max_symbols leaves room",
        ),
        (
            f'[[feeds]]\ntype = "synthetic"\nsymbols = ["{"A" * 25}"]\n',
            f'marketfeed: config.toml: feeds.0.symbols.0: "{"A" * 25}" is no symbol: 1 to 24 printable',
        ),
        (
            '[[feeds]]\ntype = "push"\nlisten = "./nowhere/push.sock"\n',
            "marketfeed: config.toml: feeds.0.listen: ",
        ),
        ('[engine]\ntap = "nowhere/tap.sock"\n', "marketfeed: config.toml: engine.tap: "),
        ('[latency]\npath = "."\n', "marketfeed: config.toml: latency.path: "),
        (
            '[[feeds]]\ntype = "push"\n[[feeds]]\nname = "b"\ntype = "push"\nlisten = "localhost:8770"\n',
            "marketfeed: config.toml: feeds.1.listen: 127.0.0.1:8770 is already the address of "
            "feeds.0.listen",
        ),
        (
            '[[feeds]]\ntype = "push"\nlisten = "127.0.0.1:8766"\n',
            "marketfeed: config.toml: feeds.0.listen: 127.0.0.1:8766 is already the address of admin.port",
        ),
        (
            '[gateway]\ntls_cert = "config.toml"\ntls_key = "b.pem"\n',
            "marketfeed: config.toml: gateway.tls_key: ",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_one_line_and_exit_2(marketfeed, config, line):
    assert told(marketfeed("serve", "--check", config=config)).startswith(line)


def test_a_mistake_without_check_is_the_same_line(marketfeed):
    line = told(marketfeed("serve", config="[gateway]\nprot = 1\n"))
    assert line.startswith("marketfeed: config.toml: gateway.prot: unknown key; did you mean port?")


MANY = """
[gateway]
prot = 9000
port = "9000"
tls_cert = "a.pem"
tls_key = "b.pem"
[engine]
tap = "nowhere/tap.sock"
[limits]
ping_s = 0
[[feeds]]
type = "synthetic"
rte = 5
trades = "0.1"
[[feeds]]
name = "names"
type = "synthetic"
symbols = ["A B", "A", "A"]
[[feeds]]
name = "file"
type = "replay"
path = "nowhere.gz"
[[feeds]]
name = "file"
type = "replya"
"""


@pytest.mark.parametrize("check", [["--check"], []])
def test_all_mistakes_are_told_at_once_those_of_feeds_and_files_too(marketfeed, check):
    done = marketfeed("serve", *check, "--set", "admin.port=x", "--set", "feeds.2.speed=-1", config=MANY)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.removeprefix("marketfeed: ").split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["config.toml", "gateway.prot"],
        ["config.toml", "gateway.port"],
        ["config.toml", "limits.ping_s"],
        ["--set admin.port=x", 'must be an integer from 0 to 65535, not the string "x"'],
        ["config.toml", "gateway.tls_cert"],
        ["config.toml", "gateway.tls_key"],
        ["config.toml", "engine.tap"],
        ["config.toml", "feeds.0.rte"],
        ["config.toml", "feeds.0.trades"],
        ["--set feeds.2.speed=-1", "must be a number from 0 to 1000000, not -1"],
        ["config.toml", "feeds.3.type"],
        ["config.toml", "feeds.3.name"],
        ["config.toml", "feeds.1.symbols.0"],
        ["config.toml", "feeds.1.symbols.2"],
        ["config.toml", "feeds.2.path"],
    ]


@pytest.mark.parametrize("check", [["--check"], []])
def test_mistakes_of_feeds_and_files_alone_are_told_at_once_too(marketfeed, check):
    config = (
        '[gateway]\ntls_cert = "a.pem"\ntls_key = "b.pem"\n'
        '[[feeds]]\ntype = "replay"\npath = "nowhere.gz"\n[[feeds]]\ntype = "synthetic"\nsymbols = []\n'
    )
    done = marketfeed("serve", *check, "--set", "feeds.0.path=gone.gz", config=config)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.removeprefix("marketfeed: ").split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["config.toml", "gateway.tls_cert"],
        ["config.toml", "gateway.tls_key"],
        ["--set feeds.0.path=gone.gz", f"{marketfeed.folder}/gone.gz"],
        ["config.toml", "feeds.1.symbols"],
    ]


def test_check_warns_of_a_file_without_feeds(marketfeed):
    done = marketfeed("serve", "--check", config="[gateway]\nport = 1\n")
    assert (done.returncode, done.stdout) == (0, "config ok: config.toml, 0 feeds, 3 tiers\n")
    assert done.stderr == "marketfeed: warning: config.toml: no [[feeds]]: subscribers will get no ticks\n"


@pytest.mark.parametrize(
    ("set_", "warning"),
    [
        ("latency.path=/proc/x/y.hlog", "no file can be created in /proc: "),
        (
            "latency.path=config.toml/y.hlog",
            "config.toml is a file, and no folder, so there will be no latency log",
        ),
        (
            "alerts.max_tries=5",
            "has no effect: alerts are off, without [[alerts.rules]], [[alerts.escalate]] or enabled = true",
        ),
        (
            "alerts.in_flight=5",
            "has no effect: alerts are off, without [[alerts.rules]], [[alerts.escalate]] or enabled = true",
        ),
        ("auth.key_file=x", 'has no effect: auth.mode is "none"'),
        ("auth.tenants.desk.max_sessions=1", 'has no effect: auth.mode is "none"'),
    ],
)
def test_check_warns_of_what_will_have_no_effect_and_of_a_log_that_cannot_be_written(
    marketfeed, set_, warning
):
    done = marketfeed("serve", "--check", "--set", set_, config='[[feeds]]\ntype = "synthetic"\n')
    assert (done.returncode, done.stdout) == (0, "config ok: config.toml, 1 feed, 3 tiers\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"marketfeed: warning: --set {set_}: ")
    assert warning in line


@pytest.mark.parametrize(
    ("auth", "lines"),
    [
        (
            'mode = "jwt"\nalgorithm = "ES256"\nkey_file = "secret"\npath = "config.toml/a.db"\n',
            [
                "auth.key_file: must hold a public key for ES256 in PEM",
                "auth.path: {folder}/config.toml is a file, and no folder",
            ],
        ),
        ('mode = "keys"\nkeys_file = "secret"\n', ["auth.keys_file: {folder}/secret is not JSON: "]),
        (
            'mode = "keys"\nkeys_file = "none"\n',
            ["auth.keys_file: {folder}/none does not exist: marketfeed keys add creates it"],
        ),
    ],
)
def test_check_finds_mistakes_of_access_control_and_shows_no_secret(marketfeed, tmp_path, auth, lines):
    (tmp_path / "secret").write_text("5ecre7" * 8)
    (tmp_path / "secret").chmod(0o600)
    done = marketfeed("serve", "--check", config=f'[[feeds]]\ntype = "synthetic"\n[auth]\n{auth}')
    told = done.stderr.splitlines()
    assert (done.returncode, len(told)) == (2, len(lines))
    for line, expected in zip(told, lines, strict=True):
        assert line.startswith(f"marketfeed: config.toml: {expected.format(folder=tmp_path)}")
    assert "5ecre7" not in done.stdout + done.stderr


def test_check_warns_of_keys_of_another_mode_and_of_secrets_that_others_may_read(marketfeed, tmp_path):
    (tmp_path / "secret").write_text("5ecre7" * 8)
    (tmp_path / "secret").chmod(0o644)
    auth = 'mode = "jwt"\nalgorithm = "HS256"\nkey_file = "secret"\nkeys_file = "k"\njwks_refresh_s = 60.0\n'
    done = marketfeed("serve", "--check", config=f'[[feeds]]\ntype = "synthetic"\n[auth]\n{auth}')
    assert done.returncode == 0
    told = {line.partition("config.toml: ")[2] for line in done.stderr.splitlines()}
    assert told == {
        f"auth.key_file: every user may read {tmp_path}/secret: chmod o-r {tmp_path}/secret",
        'auth.keys_file: has no effect: auth.mode is "jwt"',
        "auth.jwks_refresh_s: has no effect: auth.jwks is not an address",
    }


def test_check_finds_mistakes_of_escalations(marketfeed):
    tables = '[[feeds]]\ntype = "synthetic"\n'
    tables += (
        '[[alerts.escalate]]\nkind = "pager"\n[[alerts.escalate]]\nkind = "webhook"\nsecret_file = "x"\n'
    )
    done = marketfeed("serve", "--check", config=tables)
    assert done.returncode == 2
    where = "marketfeed: config.toml: alerts.escalate"
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        f'{where}.0.kind: unknown kind "pager"',
        f"{where}.1.url: missing",
    ]


@pytest.mark.parametrize(("key", "value"), [("rules", "stale"), ("escalate", "webhook")])
def test_check_warns_of_tables_of_alerts_that_are_switched_off(marketfeed, key, value):
    tables = f"[alerts]\nenabled = false\n[[alerts.{key}]]\ntype = '{value}'\n"
    done = marketfeed("serve", "--check", config=f'{tables}[[feeds]]\ntype = "synthetic"\n')
    why = "has no effect: alerts are off, alerts.enabled is false"
    assert done.stderr == f"marketfeed: warning: config.toml: alerts.{key}: {why}\n"


def test_check_warns_of_keys_of_the_file_that_have_no_effect(marketfeed):
    keys = "[alerts]\nmax_tries = 3\n[latency]\nenabled = false\npath = '/proc/x/y.hlog'\n"
    done = marketfeed("serve", "--check", config=f'{keys}[[feeds]]\ntype = "synthetic"\n')
    why = "has no effect: alerts are off, without [[alerts.rules]], [[alerts.escalate]] or enabled = true"
    assert done.stderr == f"marketfeed: warning: config.toml: alerts.max_tries: {why}\n"
    assert not (marketfeed.folder / "var").exists()


def test_a_tap_in_a_folder_that_takes_no_file_is_refused(marketfeed):
    line = told(marketfeed("serve", "--check", "--set", "engine.tap=/proc/tap.sock"))
    assert line.startswith("marketfeed: --set engine.tap=/proc/tap.sock: no file can be created in /proc: ")


def test_a_starting_configuration_is_the_shipped_one_and_can_be_served(marketfeed):
    done = marketfeed("config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (Path(__file__).parents[2] / "config.toml").read_text()
    done = marketfeed("serve", "--check", config=done.stdout)
    assert (done.returncode, done.stdout) == (0, "config ok: config.toml, 1 feed, 3 tiers\n")
    assert done.stderr == ""


def test_a_starting_configuration_overwrites_nothing(marketfeed):
    assert marketfeed("config", "--out", "mine.toml").returncode == 0
    (marketfeed.folder / "mine.toml").write_text("# mine")
    assert told(marketfeed("config", "--out", "mine.toml")) == (
        "marketfeed: --out mine.toml: the file exists; it is not overwritten"
    )
    assert (marketfeed.folder / "mine.toml").read_text() == "# mine"
    assert told(marketfeed("config", "--out", "no/mine.toml")).endswith("No such file or directory")


def test_a_starting_configuration_says_when_it_cannot_be_written(marketfeed):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "marketfeed", "config"], stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert (done.returncode, done.stderr) == (2, b"marketfeed: stdout: No space left on device\n")


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], []),
        (["PORT=9000"], ["--set", "gateway.port=9000"]),
        (
            ["PORT=0", "ADMIN_PORT=0", "ARGS=--log-level debug"],
            ["--set", "gateway.port=0", "--set", "admin.port=0", "--log-level", "debug"],
        ),
    ],
)
def test_make_run_takes_ports_and_options(variables, options):
    done = subprocess.run(
        ["make", "-n", "run", *variables],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True,
        env={"PATH": os.environ["PATH"]},  # not the variables of the make that runs the tests
    )  # fmt: skip
    command = shlex.split(done.stdout.partition("marketfeed serve")[2].replace("\\\n", " "))
    assert command == ["--config", "config.toml", *options]


def test_a_missing_configuration(marketfeed):
    line = told(marketfeed("serve", "--config", "gone.toml"))
    assert line == "marketfeed: gone.toml: No such file or directory"


def test_a_mistake_in_set(marketfeed):
    assert told(marketfeed("serve", "--set", "gateway.port")).startswith("marketfeed: --set gateway.port:")
    line = told(marketfeed("serve", "--set", "gateway.port=70000"))
    assert line == "marketfeed: --set gateway.port=70000: must be an integer from 0 to 65535, not 70000"


def test_an_unknown_log_level(marketfeed):
    assert "must be one of debug, info, warning, error" in told(marketfeed("serve", "--log-level", "loud"))


def test_watch_refuses_what_is_no_stream(marketfeed):
    assert told(marketfeed("watch", "A", "--url", "ftp://127.0.0.1/")).startswith("marketfeed: --url")


def test_watch_finds_the_engine_by_its_configuration(marketfeed):
    done = marketfeed("watch", "A", config="[gateway]\nport = 1\n")
    assert done.returncode == 1
    assert done.stderr.startswith("marketfeed watch: cannot connect to ws://127.0.0.1:1/v1/stream: ")
    assert told(marketfeed("watch", "A", config="[gateway]\nprot = 1\n")).startswith("marketfeed: config")


@pytest.mark.parametrize(
    ("command", "elsewhere"),
    [
        (("watch", "A"), "--url http://HOST:PORT"),
        (("record", "--out", "a.mfr"), "--url http://HOST:PORT"),
        (("probe", "A"), "http://HOST:PORT before the symbols"),
    ],
)
def test_who_finds_no_engine_by_the_configuration_is_told_how_to_name_one(marketfeed, command, elsewhere):
    refused = "127.0.0.1:1/v1/stream: connection refused, is the engine running?"
    done = marketfeed(*command, config="[gateway]\nport = 1\n")
    assert done.returncode
    assert done.stderr.splitlines()[0].endswith(
        f"{refused}; for an engine at another address, use {elsewhere}"
    )
    url = ("ws://127.0.0.1:1/v1/stream",) if command[0] == "probe" else ()
    more = () if url else ("--url", "ws://127.0.0.1:1/v1/stream")
    done = marketfeed(command[0], *url, *command[1:], *more)
    assert done.stderr.splitlines()[0].endswith(refused)
    free = marketfeed(*command, config="[gateway]\nport = 0\n").stderr
    assert (
        free == f"marketfeed: gateway.port: 0 means any free port; give the engine's address: {elsewhere}\n"
    )


def test_logs_on_a_terminal_hold_nothing_that_it_would_act_on():
    script = (
        "import structlog\n"
        "from marketfeed import logs\n"
        "logs.configure('info')\n"
        "structlog.get_logger().info('refused', address='\\x1b[2J\\u202e', reason='plain')\n"
    )
    ours, theirs = pty.openpty()
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=folder, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert "\\x1b[2J\\u202e" in shown
    assert "\x1b[2J" not in shown
    assert "\u202e" not in shown


def test_tracebacks_on_a_terminal_show_no_values_of_variables():
    script = (
        "import structlog\n"
        "from marketfeed import logs\n"
        "logs.configure('info')\n"
        "def work(token):\n    raise KeyError\n"
        "try:\n    work('eyJ' + 'hbGciOi')\n"
        "except KeyError:\n    structlog.get_logger().exception('failed')\n"
    )
    ours, theirs = pty.openpty()
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], cwd=folder, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "KeyError" in shown
    assert "eyJhbGciOi" not in shown


def test_logs_are_json_lines_with_utc_times_where_no_one_watches():
    script = (
        "import structlog\n"
        "from marketfeed import logs\n"
        "logs.configure('warning')\n"
        "log = structlog.get_logger()\n"
        "log.info('left out')\n"
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    log.exception('failed', feed='a')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    entry = json.loads(done.stderr)
    assert (entry["event"], entry["level"], entry["feed"]) == ("failed", "error", "a")
    assert entry["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in entry["exception"]
