"""The keys file (``auth.keys_file``): read by the engine, changed by ``marketfeed keys``.

    {"keys": [{"id": …, "hash": …, "created_s": …, "claims": {…}, "comment": …}, …]}

A change is written to a new file, which then takes the place of the old one: a reader sees all of it or none.
Writers hold a lock on ``FILE.lock`` meanwhile, so none overwrites what another one added.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from marketfeed.access.claims import NAMES, claims_of
from marketfeed.access.material import KeyEntry
from marketfeed.core.printable import printable
from marketfeed.errors import AccessError, ConfigError
from marketfeed.folders import make_secrets_folder
from marketfeed.secret import owned_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEY: Final = "auth.keys_file"
MODE: Final = 0o600  # of a new file
_ID: Final = re.compile(r"[0-9a-f]{12}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_LAST_S: Final = 1 << 40  # far beyond any time of creation


def load_keys(path: Path, name: str = KEY) -> tuple[KeyEntry, ...]:
    """Return the keys in the file, in its order. Raises ConfigError (``name: path: what is wrong``)."""
    if not os.path.exists(path):
        raise ConfigError(f"{name}: {path} does not exist: marketfeed keys add creates it")
    return _parsed(regular_content(path, name), f"{name}: {path}")


def add_key(path: Path, entry: KeyEntry, name: str = KEY) -> None:
    """Append ``entry``; creates the file, and its folder, if there is none. Raises ConfigError."""
    try:
        make_secrets_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{name}: {path.parent}: {error.strerror or error}") from None
    with _locked(path, name):
        _write(path, (*(load_keys(path, name) if os.path.exists(path) else ()), entry), name)


def remove_keys(path: Path, wanted: Callable[[KeyEntry], bool], name: str = KEY) -> tuple[KeyEntry, ...]:
    """Remove the keys that are ``wanted``, and return them. Raises ConfigError."""
    with _locked(path, name):
        keys = load_keys(path, name)
        removed = tuple(entry for entry in keys if wanted(entry))
        if removed:
            _write(path, [entry for entry in keys if entry not in removed], name)
    return removed


def regular_content(path: Path, name: str, most_bytes: int = -1) -> bytes:
    """Return what is in a file that only its owner may write; raises ConfigError (``name: path: …``).

    ``most_bytes`` is how large the file may be; -1: any size.
    """
    try:
        data = owned_bytes(name, path, most_bytes)
    except OSError as error:
        raise ConfigError(f"{name}: {path}: {error.strerror or error}") from None
    except ValueError:  # a null character in the path
        raise ConfigError(f"{name}: must be the path of a file") from None
    if 0 <= most_bytes < len(data):
        raise ConfigError(f"{name}: {path} has more than {most_bytes:,} bytes")
    return data


def _parsed(data: bytes, where: str) -> tuple[KeyEntry, ...]:
    """Return the keys in ``data``; raises ConfigError (``where: what is wrong``)."""
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{where} is not JSON: {printable(error)}") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list) or set(document) != {"keys"}:
        raise ConfigError(f'{where}: must be {{"keys": […]}}, as marketfeed keys add writes it')
    found: dict[str, KeyEntry] = {}
    for index, one in enumerate(listed):
        given = one.get("id") if isinstance(one, dict) else None
        which = f"{where}: key {printable(given, 40) if isinstance(given, str) else f'number {index + 1}'}"
        entry = _entry(one, which)
        if entry.id in found:
            raise ConfigError(f"{which}: there are two with this id")
        found[entry.id] = entry
    return tuple(found.values())


def _entry(one: Any, which: str) -> KeyEntry:
    try:
        entry = msgspec.convert(one, KeyEntry)
        problem = _entry_problem(entry)
        if problem is None:
            claims_of(entry.claims)
    except msgspec.ValidationError as error:
        problem = printable(error)
    except AccessError as error:
        problem = str(error)
    if problem is not None:
        raise ConfigError(f"{which}: {problem}")
    return entry


def _entry_problem(entry: KeyEntry) -> str | None:
    """Return what is wrong with ``entry`` that its types and claims do not express; None if nothing is."""
    if not _ID.fullmatch(entry.id):
        return "id: must be 12 hexadecimal digits"
    if not _HASH.fullmatch(entry.hash):
        return "hash: must be the 64 hexadecimal digits of a SHA-256"
    if not 0 <= entry.created_s < _LAST_S:
        return "created_s: must be a Unix time in seconds"
    unknown = next((name for name in entry.claims if name not in NAMES), None)
    if unknown is not None:
        return f"claims: unknown claim {printable(unknown, 40)!a}; there are {', '.join(NAMES)}"
    return None


@contextmanager
def _locked(path: Path, name: str) -> Iterator[None]:
    """Hold the lock on changes of the file. The lock's file stays: removing it would let two hold it."""
    try:
        fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise ConfigError(f"{name}: {path}.lock: {error.strerror or error}") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write(path: Path, keys: Iterable[KeyEntry], name: str) -> None:
    """Replace the file. The new one has the owner and the mode of the old one, if there was one."""
    document = msgspec.json.format(msgspec.json.encode({"keys": tuple(keys)}), indent=2) + b"\n"
    path = Path(os.path.realpath(path))  # a link stays one
    temporary: str | None = None
    try:
        fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with open(fd, "wb") as file:
            _keep_owner(fd, path)
            file.write(document)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise ConfigError(f"{name}: {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def _keep_owner(fd: int, path: Path) -> None:
    """Give ``fd`` the owner and the mode of the file at ``path``: the engine may run as another user."""
    try:
        old = path.stat()
    except FileNotFoundError:
        os.fchmod(fd, MODE)
        return
    own = os.fstat(fd)
    if (old.st_uid, old.st_gid) != (own.st_uid, own.st_gid):
        os.fchown(fd, old.st_uid, old.st_gid)
    os.fchmod(fd, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
