"""The key-value bucket of a cluster in JetStream: checked settings, reads, and writes by compare-and-set.

Reads go to the stream's leader: a replica may answer with an older value. No watch: its consumer would have
to be made again after each failure of a server. These functions run in the loop of the NATS thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import nats.js.errors
from nats.js.api import Header, KeyValueConfig, StorageType

from marketfeed.cluster.nats_errors import explained
from marketfeed.errors import ClusterError

if TYPE_CHECKING:
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig

HISTORY: Final = 1
# Error codes of JetStream (server/errors.json of nats-server).
_NO_STREAM: Final = 10059
_OTHER_REVISION: Final = (10071, 10164)
_NAME_IN_USE: Final = 10058
_OPERATION: Final = "KV-Operation"  # a header that only marks of deletions have


class BucketSettingsError(ClusterError):
    """The bucket exists with settings under which it cannot hold a lease; an operator must change them."""


class BucketGoneError(ClusterError):
    """The bucket does not exist any more, or has no leader for a moment."""


class Entry(NamedTuple):
    """A value, and the revision that wrote it."""

    value: bytes
    revision: int


async def prepare(js: JetStreamContext, name: str, replicas: int) -> None:
    """Make the bucket ``name`` if there is none, and check its settings.

    Raises BucketSettingsError, and the errors of nats-py.
    """
    try:
        info = await js.stream_info(stream_of(name))
    except nats.js.errors.NotFoundError:
        wanted = KeyValueConfig(bucket=name, history=HISTORY, replicas=replicas, storage=StorageType.FILE)
        try:
            await js.create_key_value(wanted)
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_IN_USE:  # another node has just made it
                raise
        info = await js.stream_info(stream_of(name))
    if problems := _problems(info.config, replicas):
        raise BucketSettingsError(f"the bucket {name} in NATS cannot be used: {', '.join(problems)}")


def stream_of(bucket: str) -> str:
    """Return the name of the stream that holds ``bucket``."""
    return f"KV_{bucket}"


async def get(js: JetStreamContext, bucket: str, key: str) -> Entry | None:
    """Return the value of ``key``, None if it has none or is deleted."""
    found, deleted = await _last(js, bucket, key)
    return None if deleted else found


async def compare_and_set(
    js: JetStreamContext, bucket: str, key: str, value: bytes, revision: int
) -> int | None:
    """Write ``value`` if ``revision`` is that of the value now, 0 of none; return the new one, else None.

    A deleted key has no value. Raises BucketGoneError, and the errors of nats-py.
    """
    written = await _write(js, bucket, key, value, revision)
    if written is not None or revision:
        return written
    found, deleted = await _last(js, bucket, key)
    return await _write(js, bucket, key, value, found.revision) if found and deleted else None


async def _write(js: JetStreamContext, bucket: str, key: str, value: bytes, after: int) -> int | None:
    """Write ``value`` if the newest entry of ``key``, if only of a deletion, has revision ``after``."""
    headers = {Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value: str(after)}
    try:
        acknowledged = await js.publish(_subject(bucket, key), value, headers=headers)
    except nats.js.errors.NoStreamResponseError:
        raise BucketGoneError(f"the bucket {bucket} in NATS does not answer") from None
    except nats.js.errors.APIError as error:
        if error.err_code in _OTHER_REVISION:
            return None
        raise
    return acknowledged.seq


async def _last(js: JetStreamContext, bucket: str, key: str) -> tuple[Entry | None, bool]:
    """Return the newest entry of ``key``, and whether it marks a deletion."""
    try:
        found = await js.get_msg(stream_of(bucket), subject=_subject(bucket, key), direct=False)
    except nats.js.errors.NotFoundError as error:
        if error.err_code == _NO_STREAM:
            raise BucketGoneError(f"the bucket {bucket} in NATS is gone: {explained(error)}") from None
        return None, False
    assert found.seq is not None, "JetStream numbers each message"
    return Entry(found.data or b"", found.seq), _OPERATION in (found.headers or {})


def _subject(bucket: str, key: str) -> str:
    return f"$KV.{bucket}.{key}"


def _problems(config: StreamConfig, replicas: int) -> list[str]:
    """Return which settings differ from those of a bucket that :func:`prepare` makes."""
    compared = (
        ("history", config.max_msgs_per_subject, HISTORY),
        ("ttl", config.max_age or 0, 0),
        ("replicas", config.num_replicas or 1, replicas),
        ("storage", str(getattr(config.storage, "value", config.storage)), StorageType.FILE.value),
        ("max_msgs", config.max_msgs or -1, -1),
        ("max_bytes", config.max_bytes or -1, -1),
    )
    return [f"{name} must be {wanted}, not {found}" for name, found, wanted in compared if found != wanted]
