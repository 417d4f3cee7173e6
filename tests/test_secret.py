"""Secrets come from files and the environment, and are shown nowhere."""

from __future__ import annotations

import copy
import os
import pickle
from pathlib import Path

import msgspec
import pytest

from marketfeed.alerts.escalation.message import Setup
from marketfeed.errors import ConfigError
from marketfeed.secret import Secret, read_secret, readable_by_all, required, secret_in

WORD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def refusal(file: str | None, env: str | None, base: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as found:
        required(read_secret("secret", file, env, base, environ), "secret")
    (line,) = found.value.mistakes
    assert WORD not in line
    return line


def test_a_secret_is_read_from_a_file_or_a_variable(tmp_path):
    (tmp_path / "word").write_text(f"  {WORD}\n")
    for found in (
        read_secret("secret", "word", None, tmp_path, {}),
        read_secret("secret", str(tmp_path / "word"), None, Path("/"), {}),
        read_secret("secret", None, "HOOK", tmp_path, {"HOOK": f"{WORD} "}),
    ):
        assert found is not None
        assert found.reveal() == WORD
    assert read_secret("secret", None, None, tmp_path, {}) is None


def test_mistakes_name_the_key_and_what_is_wrong(tmp_path):
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "long").write_text("x" * 5000)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert refusal(None, None, tmp_path).startswith("secret_file: missing; ")
    assert refusal("empty", "HOOK", tmp_path).startswith("secret_env: not allowed together with secret_file")
    assert refusal("empty", None, tmp_path) == f"secret_file: {tmp_path}/empty is empty"
    assert refusal("none", None, tmp_path) == f"secret_file: {tmp_path}/none: No such file or directory"
    assert refusal("long", None, tmp_path) == f"secret_file: {tmp_path}/long has more than 4096 bytes"
    assert refusal("binary", None, tmp_path) == f"secret_file: {tmp_path}/binary is not plain ASCII text"
    assert refusal("a\0b", None, tmp_path) == "secret_file: must be the path of a file"
    assert refusal(None, "HOOK", tmp_path).endswith("variable HOOK is not set, or is empty")
    assert refusal(None, "HOOK", tmp_path, HOOK="ä").endswith("variable HOOK is not plain ASCII text")
    assert refusal(None, "a b", tmp_path) == "secret_env: must be the name of an environment variable"


@pytest.mark.parametrize(
    "word", [WORD, "R0UT1NGKEYR0UT1NGKEYR0UT1NGKEY12", "abcdefabcdefabcdefabcdefabcdef00"]
)
def test_a_secret_in_place_of_a_name_is_not_repeated(word, tmp_path):
    assert word.lower() not in refusal(word, None, tmp_path).lower()
    assert word not in refusal(None, word.lower(), tmp_path)
    assert word.lower() not in refusal(None, word.lower(), tmp_path)


def test_an_absolute_path_of_a_missing_file_is_shown(tmp_path):
    path = tmp_path / "no_such_file"
    assert refusal(str(path), None, Path("/etc")) == f"secret_file: {path}: No such file or directory"
    assert WORD not in refusal(str(tmp_path / WORD), None, tmp_path)
    assert WORD not in refusal(f"/{WORD}", None, tmp_path)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o464])
def test_a_file_that_others_may_write_is_refused(tmp_path, mode):
    path = tmp_path / "word"
    path.write_text(WORD)
    path.chmod(mode)
    told = f"secret_file: {path} may be written by its group or by all users: chmod go-w {path}"
    assert refusal("word", None, tmp_path) == told


@pytest.mark.parametrize(("mode", "exposed"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_file_that_others_may_read_is_read_and_known_to_be_exposed(tmp_path, mode, exposed):
    path = tmp_path / "word"
    path.write_text(WORD)
    path.chmod(mode)
    (tmp_path / "link").symlink_to(path)
    for name in ("word", "link"):
        assert secret_in("secret_file", name, tmp_path).reveal() == WORD
        assert readable_by_all(tmp_path / name) is exposed
    assert not readable_by_all(tmp_path / "none")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    assert refusal("pipe", None, tmp_path) == f"secret_file: {tmp_path}/pipe is no regular file"
    assert refusal(".", None, tmp_path) == f"secret_file: {tmp_path}: Is a directory"


def test_a_long_name_of_a_file_is_no_secret(tmp_path):
    (tmp_path / "pagerduty_routing_key_of_the_desk").write_text("key")
    assert read_secret("k", "pagerduty_routing_key_of_the_desk", None, tmp_path, {}) is not None


def test_no_text_of_a_secret_has_its_value():
    secret = Secret(WORD)
    holder = msgspec.defstruct("Holder", [("secret", Secret)])(secret)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr([secret]), repr(holder)]
    texts += [repr(Setup("ops", Path("/"), {"HOOK": WORD}))]
    assert not [text for text in texts if WORD in text]
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled"):
            leak(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(secret)
