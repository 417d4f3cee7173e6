"""The file of the admin port's token: what it may hold, and that no message repeats it."""

from __future__ import annotations

import pytest

from marketfeed.checks import admin_token, exposed, idle, mistakes
from marketfeed.config.admin_token import token_in
from marketfeed.config.schema import load
from marketfeed.errors import ConfigError

TOKEN = "0123456789abcdef0123456789ABCDE~"


@pytest.fixture
def loaded(tmp_path):
    """Load a configuration whose token file has this text."""

    def load_token(text, mode=0o600, name="admin.token"):
        if text is not None:
            (tmp_path / "admin.token").write_text(text)
            (tmp_path / "admin.token").chmod(mode)
        (tmp_path / "c.toml").write_text(f'[admin]\ntoken_file = "{name}"\n')
        return load(tmp_path / "c.toml")

    return load_token


@pytest.mark.parametrize("text", [TOKEN, f"{TOKEN}\n", f"{TOKEN}\r\n", TOKEN * 100])
def test_the_token_is_read_without_the_end_of_its_line(loaded, text):
    found = admin_token(loaded(text))
    assert found is not None
    assert found.reveal() == text.strip()
    assert not mistakes(loaded(text))


def test_without_the_key_there_is_no_token(tmp_path):
    (tmp_path / "c.toml").write_text("")
    assert admin_token(load(tmp_path / "c.toml")) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "{path}: No such file or directory"),
        ("", "{path} is empty"),
        (" \n", "{path} is empty"),
        (TOKEN[:-1], "the token in {path} must have at least 32 characters: openssl rand -hex 32"),
        (f"{TOKEN} {TOKEN}", "{path} must hold one token: printable characters without space"),
        (f"{TOKEN}\n{TOKEN}", "{path} must hold one token: printable characters without space"),
        (f"{TOKEN}\x7f", "{path} must hold one token: printable characters without space"),
        (f"{TOKEN}é", "{path} is not plain ASCII text"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_does_not_show_the_token(loaded, tmp_path, text, told):
    (line,) = mistakes(loaded(text))
    assert line == f"admin.token_file: {told.format(path=tmp_path / 'admin.token')}"
    assert TOKEN[:16] not in line


def test_a_token_in_place_of_its_file_is_not_repeated(loaded):
    (line,) = mistakes(loaded(None, name=TOKEN.replace("~", "0")))
    assert line == "admin.token_file: must be the path of a file that holds the secret"


def test_others_who_may_read_are_a_warning_and_others_who_may_write_a_mistake(loaded, tmp_path):
    path = tmp_path / "admin.token"
    for mode in (0o600, 0o640):
        assert not exposed(loaded(TOKEN, mode))
    told = f"{tmp_path / 'c.toml'}: admin.token_file: every user may read {path}: chmod o-r {path}"
    assert exposed(loaded(TOKEN, 0o644)) == [told]
    assert told in idle(loaded(TOKEN, 0o644))
    (line,) = mistakes(loaded(TOKEN, 0o660))
    assert line.endswith(f"chmod go-w {path}")


def test_an_option_is_named_in_place_of_the_key(tmp_path):
    with pytest.raises(ConfigError, match=r"^--admin-token-file: .*/none: No such file or directory$"):
        token_in("none", tmp_path, "--admin-token-file")
