"""The subjects of a cluster's messages, and what each one carries. Pure.

    mf.<cluster>.<shard>.t                                   frames of the origin, to all
    mf.<cluster>.<shard>.r.<node>.<from>.<number>            a request for ticks or names (cluster/repairs.py)
    mf.<cluster>.<shard>.sync.<node>.<from>.<number>         a request for the state (cluster/state.py)
    mf.<cluster>.<shard>.a.<node>.<kind>.<from>.<number>     a part of the answer: kind is r or sync
    mf.<cluster>.n.<node>                                    the status of a node, each second

``<node>`` is who receives, ``<from>`` who sends; an answer has the number of its request.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from marketfeed.config.cluster import STATUSES

_MAX_DIGITS: Final = 18


class Topic(StrEnum):
    """What a message is."""

    FRAME = "t"
    REQUEST = "r"
    SYNC = "sync"
    REPAIR = "a.r"
    STATE = "a.sync"
    STATUS = "n"


class Address(NamedTuple):
    """What a subject says: ``source`` is the node that sends, and "" for frames."""

    topic: Topic
    source: str = ""
    number: int = 0


class Subjects:
    """The subjects of one node of one shard; names are tokens of subjects."""

    def __init__(self, cluster: str, shard: str, node: str) -> None:
        self._of_shard = f"mf.{cluster}.{shard}"
        self._node = node
        self.frames = f"{self._of_shard}.t"
        self.status = f"mf.{cluster}.{STATUSES}.{node}"
        own = (f"{self._of_shard}.{topic}.{node}.>" for topic in (Topic.REQUEST, Topic.SYNC, "a"))
        self.received = (f"mf.{cluster}.{STATUSES}.*", *own)

    def to(self, topic: Topic, node: str, number: int) -> str:
        """Return the subject of a message with this number to ``node``."""
        name, _, kind = topic.value.partition(".")
        return ".".join((self._of_shard, name, node, *([kind] if kind else []), self._node, str(number)))

    def parsed(self, subject: str) -> Address | None:
        """Return what ``subject`` says, None if it is none of these."""
        match subject.split(".")[2:]:
            case [_, "t"]:
                return Address(Topic.FRAME)
            case ["n", node]:
                return Address(Topic.STATUS, node)
            case [_, "r" | "sync" as name, _, source, number] if _is_number(number):
                return Address(Topic(name), source, int(number))
            case [_, "a", _, "r" | "sync" as name, source, number] if _is_number(number):
                return Address(Topic(f"a.{name}"), source, int(number))
            case _:
                return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
