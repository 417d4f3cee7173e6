"""Secrets come from files and the environment, and are shown nowhere."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import msgspec
import pytest

from marketfeed.alerts.escalation.message import Setup
from marketfeed.alerts.escalation.secret import Secret, read_secret, required
from marketfeed.errors import ConfigError

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
