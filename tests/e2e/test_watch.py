"""``marketfeed watch`` on a real terminal, at a real engine: what it shows, and the terminal afterwards."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from tests.support.ports import free_port
from tests.support.process import engine

FEED = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 50\nrate = 500\n'
WAIT_S = 30
ALTERNATE, BACK = b"\x1b[?1049h", b"\x1b[?1049l"


class Terminal:
    """``marketfeed watch`` on a pseudo-terminal of 24 rows; what it writes is gathered."""

    def __init__(self, running, folder, *arguments, columns=100):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs  # held open, so that its state can be asked for afterwards
        argv = [sys.executable, "-m", "marketfeed", "watch", *arguments, "--url", running.url]
        self.process = subprocess.Popen(
            argv, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env=os.environ | {"TERM": "xterm"},
        )  # fmt: skip
        self.written = b""
        self._grown = threading.Condition()
        threading.Thread(target=self._gather, daemon=True).start()

    def _gather(self):
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:
                return
            with self._grown:
                self.written += data
                self._grown.notify_all()

    def wait_for(self, pattern, after=0):
        """Wait until what was written since ``after`` matches; return the match."""
        found = None

        def matches():
            nonlocal found
            found = re.search(pattern, self.written[after:], re.DOTALL)
            return found

        with self._grown:
            assert self._grown.wait_for(matches, WAIT_S), self.written[after:][-3000:].decode(
                errors="replace"
            )
        return found

    def type(self, keys):
        os.write(self._ours, keys)

    def ended(self):
        """Return the exit status; the terminal has to be as it was."""
        status = self.process.wait(WAIT_S)
        assert termios.tcgetattr(self._theirs) == self.before
        self.wait_for(re.escape(BACK))
        assert self.written.count(ALTERNATE) == self.written.count(BACK)
        assert self.written.rindex(b"\x1b[?25h") > self.written.rindex(b"\x1b[?25l")  # the cursor
        return status

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self._ours)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with engine(FEED, tmp_path_factory.mktemp("engine")) as one:
        yield one


@pytest.fixture
def terminal(running, tmp_path):
    opened = []

    def start(*arguments, **more):
        opened.append(Terminal(running, tmp_path, *arguments, **more))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_keys_scroll_and_quit(terminal):
    watching = terminal("*")
    watching.wait_for(rb"symbols 1 to 21 of 50")
    watching.type(b"\x1b[6~")
    watching.wait_for(rb"symbols 22 to 42 of 50")
    watching.type(b"jj")
    watching.wait_for(rb"symbols 24 to 44 of 50")
    watching.type(b"q")
    assert watching.ended() == 0


def test_keys_order_filter_and_pause(terminal):
    watching = terminal("*")
    watching.wait_for(rb"symbols 1 to 21 of 50 .{1,3} /: filter")
    watching.type(b"s")
    watching.wait_for(rb"symbols 1 to 21 of 50 by activity")
    watching.type(b"/sy0007\n")
    watching.wait_for(rb"symbols 1 to 1 of 1 with sy0007 by activity")
    watching.type(b"\x1b")
    watching.wait_for(rb"symbols 1 to 21 of 50 by activity", watching.written.rindex(b"with sy0007"))
    watching.type(b" ")
    watching.wait_for(rb"paused [0-9]+ ms.*paused 1\.[0-9] s")
    watching.type(b"?")
    watching.wait_for(rb"any key: back")
    watching.type(b"  q")
    assert watching.ended() == 0


def test_keys_change_the_tier_of_the_open_session(terminal):
    watching = terminal("SY0000", columns=200)
    watching.wait_for(rb"live .{1,3} vip .{1,3} ")
    for tier in (b"premium", b"basic", b"vip"):
        at = len(watching.written)
        watching.type(b"t")
        watching.wait_for(rb"live .{1,3} " + tier, at)
    watching.type(b"T")
    watching.wait_for(rb"live .{1,3} basic", at)
    assert b"reconnecting" not in watching.written
    watching.type(b"q")
    assert watching.ended() == 0


def test_a_tier_that_was_chosen_stays_after_a_restart_of_the_engine(tmp_path):
    port = free_port()
    settings = ("--set", f"gateway.port={port}")
    with engine(FEED, tmp_path, *settings) as first:
        watching = Terminal(first, tmp_path, "SY0000", columns=200)
        try:
            watching.wait_for(rb"live .{1,3} vip")
            watching.type(b"t")
            watching.wait_for(rb"live .{1,3} premium")
            assert first.stop() == 0
            watching.wait_for(rb"reconnecting")
            at = len(watching.written)
            with engine(FEED, tmp_path, *settings):
                watching.wait_for(rb"live .{1,3} premium", at)
                watching.type(b"q")
                assert watching.ended() == 0
        finally:
            watching.close()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, ending):
    watching = terminal("SY0000")
    watching.wait_for(rb"symbols 1 to 1 of 1")
    watching.process.send_signal(ending)
    assert watching.ended() == 0


def test_what_ends_it_is_said_where_it_can_be_read(terminal):
    watching = terminal("a b")
    assert watching.ended() == 1
    said = watching.written.rpartition(BACK)[2]
    assert said.startswith(b"marketfeed watch: error 400: ")


def test_while_it_is_stopped_the_terminal_is_the_shells(terminal):
    watching = terminal("*")
    watching.wait_for(rb"symbols 1 to 21 of 50")
    watching.type(b"\x1a")  # Ctrl-Z
    watching.wait_for(re.escape(BACK))
    deadline_s = time.monotonic() + WAIT_S
    while os.waitid(os.P_PID, watching.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is None:
        assert time.monotonic() < deadline_s
    assert termios.tcgetattr(watching._theirs) == watching.before
    at = len(watching.written)
    watching.process.send_signal(signal.SIGCONT)
    watching.wait_for(re.escape(ALTERNATE) + rb".*symbols 1 to 21 of 50", at)
    watching.type(b"q")
    assert watching.ended() == 0


def test_names_that_the_engine_does_not_know_are_told_with_what_is_near(terminal, running, tmp_path):
    watching = terminal("SY0000", "sy0001", "NOPE", "ZZ*")
    watching.wait_for(rb"sy0001: the engine has no such symbol; did you mean SY0001")
    watching.wait_for(rb"NOPE: the engine has no such symbol \(waiting for it\)")
    watching.wait_for(rb"ZZ\*: the engine has no symbol with this prefix")
    watching.type(b"q")
    assert watching.ended() == 0
    argv = [sys.executable, "-m", "marketfeed", "watch", "NOPE", "--url", running.url]
    with subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as piped:
        assert piped.stderr is not None
        said = piped.stderr.readline()
        piped.send_signal(signal.SIGINT)
        assert piped.wait(WAIT_S) == 0
    assert said == b"marketfeed watch: NOPE: the engine has no such symbol (waiting for it)\n"
