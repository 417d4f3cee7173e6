"""``marketfeed serve`` as users and service managers see it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.support.process import engine, open_session

SYNTHETIC = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 10\nrate = 1000\n'


def test_one_line_on_stdout_and_a_clean_end_on_sigterm(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running, open_session(running.url) as ws:
        ws.send('{"action":"subscribe","quotes":["*"]}')
        assert json.loads(ws.recv())[0]["T"] == "subscription"
        running.process.send_signal(signal.SIGTERM)
        messages = [message for frame in ws for message in json.loads(frame)]
        assert messages[-1]["T"] == "closing"
        assert messages[-1]["code"] == 1001
        assert ws.protocol.close_rcvd is not None
        assert ws.protocol.close_rcvd.code == 1001
        assert running.process.wait(10) == 0
        assert running.process.stdout is not None
        assert running.process.stdout.read() == ""
        assert running.logged("stopped")


def test_sigint_drains_too(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        assert running.stop(signal.SIGINT) == 0


def test_a_second_signal_stops_at_once_with_130(tmp_path):
    with engine(SYNTHETIC, tmp_path, "--set", "engine.drain_s=60") as running, open_session(running.url):
        running.process.send_signal(signal.SIGSTOP)  # so that both signals wait for it together
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGCONT)
        assert running.process.wait(10) == 130


def test_a_port_in_use_is_one_line_and_exit_2(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        for section, free in (("gateway", "admin"), ("admin", "gateway")):
            ports = ["--set", f"{section}.port={running.port}", "--set", f"{free}.port=0"]
            second = subprocess.run(
                [sys.executable, "-m", "marketfeed", "serve", *ports],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                timeout=30,
            )
            assert (second.returncode, second.stdout) == (2, "")
            (told,) = [line for line in second.stderr.splitlines() if not line.startswith("{")]
            assert told == (
                f"marketfeed: {section}.port: cannot listen on 127.0.0.1:{running.port}: "
                f"Address already in use; another port is set by --set {section}.port=N"
            )


def test_a_configuration_without_feeds_says_so(tmp_path):
    with engine("[engine]\nmax_symbols = 10\n", tmp_path) as running:
        assert running.logged(f"{tmp_path / 'config.toml'}: no [[feeds]]: subscribers will get no ticks")
        assert running.stop() == 0


@pytest.mark.alone  # a client that cannot close within its deadline breaks off, and the code is 1006
def test_watch_prints_plain_lines_when_piped(tmp_path):
    with engine(SYNTHETIC, tmp_path) as running:
        watch = subprocess.Popen(
            [sys.executable, "-m", "marketfeed", "watch", "SY*", "--url", running.url],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watch.stdout is not None
        lines = [watch.stdout.readline() for _ in range(50)]
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
        watch.stdout.close()
        assert running.logged("session closed")["code"] == 1000
        assert any(" quote SY" in line for line in lines)
        assert all("SY00" in line for line in lines)


def test_watch_without_an_engine_fails_with_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "marketfeed", "watch", "A", "--url", "ws://127.0.0.1:1/v1/stream"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cannot connect" in done.stderr
