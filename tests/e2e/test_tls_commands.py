"""watch, record and probe at an engine that speaks TLS, and at the wrong port of one."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from tests.support.peers import Files
from tests.support.ports import free_port
from tests.support.process import engine

FEED = '[[feeds]]\nname = "demo"\ntype = "synthetic"\nsymbols = 5\nrate = 500\n'


def command(folder, name, *arguments):
    more = {"watch": ["SY0000"], "record": ["--seconds", "1.5"], "probe": ["SY0000", "--seconds", "1.5"]}[
        name
    ]
    if name == "record":
        more += ["--out", f"{time.monotonic_ns()}.mfr"]
    argv = [sys.executable, "-m", "marketfeed", name, *arguments, *more]
    return subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process, seconds=30):
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out, err


def at(name, url):
    return [url] if name == "probe" else ["--url", url]


def get_in(folder, name, *arguments):
    """Check that a command gets ticks; watch has no end of its own."""
    process = command(folder, name, *arguments)
    if name == "watch":
        line = process.stdout.readline()
        process.terminate()
        assert re.search(r"(quote|trade) SY0000 ", line), process.stderr.read()
        process.communicate()
        return
    status, out, err = ended(process)
    assert status == 0, err
    assert "ticks" in out if name == "probe" else err.endswith("complete\n")


def refused(folder, name, *arguments):
    """Return what a command says that does not get in: one line, at once."""
    status, out, err = ended(command(folder, name, *arguments))
    assert (status, out) == (2 if name == "probe" else 1, "")
    (line,) = err.splitlines()
    return line


@pytest.fixture(params=["watch", "record", "probe"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """An engine behind TLS on a port that its configuration names."""
    folder = tmp_path_factory.mktemp("sealed")
    files = Files(folder)
    port = free_port()
    gateway = f'[gateway]\nport = {port}\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    (folder / "own.toml").write_text(FEED + gateway)
    with engine(FEED + gateway, folder, "--set", f"gateway.port={port}") as running:
        yield running, folder, files


def test_by_its_own_configuration_a_command_gets_in_over_tls(sealed, name):
    _, folder, _ = sealed
    get_in(folder, name, "-c", "own.toml")


def test_with_its_authority_a_command_gets_in_over_tls(sealed, name):
    running, folder, files = sealed
    get_in(folder, name, *at(name, running.url), "--ca", str(files.authority))


def test_without_it_a_command_says_what_tls_said_and_names_the_option(sealed, name):
    running, folder, _ = sealed
    said = refused(folder, name, *at(name, running.url))
    assert said.endswith(
        "unable to get local issuer certificate; to trust this certificate or its authority, use --ca FILE"
    )


def test_a_command_that_does_not_speak_tls_is_told_so_by_the_engine(sealed, name):
    running, folder, _ = sealed
    said = refused(folder, name, *at(name, running.url.replace("wss:", "ws:")))
    assert said.endswith("refused with HTTP status 400: this port speaks TLS: https:// or wss://")


def test_a_command_that_speaks_tls_to_a_plain_port_says_so(tmp_path, name):
    with engine(FEED, tmp_path) as running:
        said = refused(tmp_path, name, *at(name, running.url.replace("ws:", "wss:")))
        assert "TLS: " in said
        assert said.endswith("does this port serve ws://?")


def test_a_ca_that_is_none_is_a_mistake_of_the_command(tmp_path, name):
    status, _, err = ended(command(tmp_path, name, *at(name, "wss://127.0.0.1:1/"), "--ca", "nope.pem"))
    assert status == 2
    assert err == "marketfeed: --ca nope.pem: No such file or directory\n"
