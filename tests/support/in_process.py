"""Runner of `marketfeed` commands in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from marketfeed.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Done(NamedTuple):
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str


def runner(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return a function that runs a command with arguments."""

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        status = app([str(one) for one in arguments], standalone_mode=False)
        out, err = capsys.readouterr()
        return Done(status or 0, out, err)

    return run
