"""The systemd unit and the Dockerfile are valid, and their commands work on a running engine."""

from __future__ import annotations

import ctypes
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import READY_S, engine

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "marketfeed.service"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMMAND = Path(sys.executable).with_name("marketfeed")
# linux/prctl.h: PR_GET_MDWE, PR_SET_MDWE; as strict as MemoryDenyWriteExecute=, which is a seccomp filter.
CAN_DENY = ctypes.CDLL(None).prctl(66, 0, 0, 0, 0) >= 0
DENIED = (
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (Debian: systemd)"
)


def commands_of(unit: str) -> dict[str, list[str]]:
    return {key: shlex.split(value) for key, value in re.findall(r"^(Exec\w+)=(.*)$", unit, re.MULTILINE)}


@needs_systemd
def test_systemd_accepts_the_unit(tmp_path):
    installed = UNIT.read_text().replace("/opt/marketfeed/bin/marketfeed", str(COMMAND))
    unit = tmp_path / UNIT.name
    unit.write_text(installed)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_the_unit_checks_the_configuration_that_it_serves(tmp_path):
    commands = commands_of(UNIT.read_text())
    assert commands["ExecStartPre"] == [*commands["ExecStart"], "--check"]
    config = tmp_path / "config.toml"
    subprocess.run([COMMAND, "config", "--out", config], check=True, timeout=60)
    start = [str(config) if argument.endswith(".toml") else argument for argument in commands["ExecStartPre"]]
    done = subprocess.run([COMMAND, *start[1:]], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"config ok: {config}"), done.stderr


def test_the_unit_leaves_more_time_to_stop_than_a_drain_takes(tmp_path):
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert stop is not None
    shipped = (DEPLOY.parent / "config.toml").read_text()
    drain = re.search(r"^drain_s = ([\d.]+)", shipped, re.MULTILINE)
    assert drain is not None
    assert float(stop[1]) > float(drain[1])


@pytest.mark.skipif(not CAN_DENY, reason="needs Linux 6.3, to deny writable and executable memory")
def test_the_engine_and_its_workers_run_without_writable_executable_memory(tmp_path):
    ports = ["--set", "gateway.port=0", "--set", "admin.port=0", "--set", "engine.workers=1"]
    process = subprocess.Popen(
        [sys.executable, "-c", DENIED, "-m", "marketfeed", "serve", *ports],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.terminate()
        _, log = process.communicate(timeout=READY_S)
    finally:
        process.kill()
    assert (ready[:16], process.returncode) == ("marketfeed ready", 0), log


def test_the_health_check_of_the_image_asks_a_running_engine(tmp_path):
    found = re.search(r"HEALTHCHECK .*?CMD (\[.*?\])$", DOCKERFILE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    check = json.loads(found[1])
    with engine("", tmp_path) as live:
        here = [argument.replace(":8766/", f":{live.admin_port}/") for argument in check]
        assert here != check
        subprocess.run([sys.executable, *here[1:]], check=True, timeout=60)
        gone = [argument.replace(":8766/", f":{live.port}/") for argument in check]
        assert subprocess.run([sys.executable, *gone[1:]], capture_output=True, timeout=60).returncode != 0


def test_the_dockerfile_is_free_of_lint():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", DOCKERFILE],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "")
