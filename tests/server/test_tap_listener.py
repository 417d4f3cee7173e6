"""The tap's door over real Unix sockets: who is let in, what they are given, what they cannot do."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import stat
from contextlib import contextmanager

import numpy as np
import pytest
import trio

from marketfeed.core.records import QUOTE, Batch
from marketfeed.core.rings import Rings
from marketfeed.core.symbols import SymbolTable
from marketfeed.core.writer import RingWriter
from marketfeed.errors import ConfigError, StartError, TapError
from marketfeed.server.tap_listener import Taps
from marketfeed.shm.tap import tap


class Door:
    """Rings of one symbol, and a door to them."""

    def __init__(self, path, most=4):
        self.path = path
        self.rings = Rings.shared(4, 8)
        self.writer = RingWriter(self.rings)
        SymbolTable(4, self.rings.names).intern("A")
        self.taps = Taps(self.rings, path, most)

    async def connect(self):
        return await trio.to_thread.run_sync(tap, self.path)

    def publish(self):
        self.writer.write(Batch(np.zeros(1, QUOTE)))
        self.taps.ring()


@contextmanager
def opened(path, most=4):
    door = Door(path, most)
    with door.taps.open():
        yield door
    os.close(door.rings.fd)


@pytest.fixture
async def door(tmp_path):
    with opened(tmp_path / "tap.sock") as door:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.taps.accept, nursery)
            yield door
            nursery.cancel_scope.cancel()


async def until(condition):
    with trio.fail_after(10):
        while not condition():
            await trio.sleep(0.001)


async def test_a_reader_is_given_the_rings_and_a_doorbell_of_its_own(door):
    with await door.connect() as one, await door.connect() as two:
        assert one.epoch == two.epoch == door.rings.epoch
        door.publish()
        for reader in (one, two):
            assert reader.wait(10)
            assert reader.latest("A")["n"].tolist() == [1]
        assert (len(door.taps), door.taps.accepted) == (2, 2)
    await until(lambda: len(door.taps) == 0)


async def test_a_reader_that_sleeps_is_rung_all_the_same(door):
    with await door.connect() as reader:
        os.eventfd_write(reader.fileno(), 2**64 - 2)  # the most that an eventfd holds
        door.publish()
        assert reader.wait(10)
        assert not reader.wait(0)


async def test_a_reader_cannot_write_into_the_rings(door):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(door.path))
    await until(lambda: len(door.taps) == 1)
    _, fds, _, _ = socket.recv_fds(connection, 4096, 2)
    rings, bell = fds
    size = os.fstat(rings).st_size
    with pytest.raises(PermissionError):
        mmap.mmap(rings, size)
    with pytest.raises(PermissionError):
        os.pwrite(rings, b"x", 0)
    for length in (0, 2 * size):
        with pytest.raises(PermissionError):
            os.ftruncate(rings, length)
    with pytest.raises(PermissionError):
        fcntl.fcntl(rings, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    again = os.open(f"/proc/self/fd/{rings}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, size)
    for fd in (rings, bell, again):
        os.close(fd)
    connection.close()
    door.publish()
    assert door.rings.head() == 1


async def test_the_socket_is_its_owners_alone(door):
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o600


async def test_over_the_limit_a_reader_is_told_so_until_one_leaves(tmp_path):
    with opened(tmp_path / "tap.sock", most=1) as door:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.taps.accept, nursery)
            with await door.connect():
                with pytest.raises(TapError, match=r"refuses: too many taps: limits\.taps is 1"):
                    await door.connect()
                assert door.taps.refused == {"too many taps": 1}
            await until(lambda: len(door.taps) == 0)
            (await door.connect()).close()
            nursery.cancel_scope.cancel()


async def test_a_reader_that_speaks_is_dismissed(door):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(door.path))
    await until(lambda: len(door.taps) == 1)
    connection.send(b"give me more")
    await until(lambda: len(door.taps) == 0)
    connection.close()


async def test_one_that_goes_before_its_greeting_costs_nothing(door):
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hasty:
            hasty.connect(str(door.path))
    (await door.connect()).close()
    await until(lambda: not len(door.taps))


async def test_out_of_descriptors_a_reader_is_told_so(door, monkeypatch):
    def none_left(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", none_left)
    with pytest.raises(TapError, match="no doorbell: Too many open files"):
        await door.connect()
    assert door.taps.refused == {"no doorbell": 1}


async def test_what_a_dead_engine_left_is_replaced_and_ours_is_removed(tmp_path):
    path = tmp_path / "tap.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(path))
    assert path.exists()
    with opened(path):
        assert path.exists()
    assert not path.exists()


async def test_another_engines_tap_is_left_alone(tmp_path):
    path = tmp_path / "tap.sock"
    with opened(path):
        with (
            pytest.raises(StartError, match=r"engine\.tap: .*another process is listening there"),
            opened(path),
        ):
            pass
        assert path.exists()


async def test_a_file_that_is_no_socket_stays(tmp_path):
    path = tmp_path / "tap.sock"
    path.write_text("mine")
    with pytest.raises(StartError, match="a file that is not a socket exists there"), opened(path):
        pass
    assert path.read_text() == "mine"


async def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "tap.sock"
    with pytest.raises(ConfigError, match=r"engine\.tap: .*/tap\.sock: there is no folder .*/nowhere$"):
        Taps(Rings.private(4, 8), path, 1)


async def test_a_successors_socket_is_not_removed(tmp_path):
    path = tmp_path / "tap.sock"
    with opened(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
            successor.bind(str(path))
    assert path.exists()


async def test_a_path_that_no_socket_can_have_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.tap: a Unix socket's path has at most 107 bytes"):
        Taps(Rings.private(4, 8), tmp_path / ("x" * 120), 1)


async def test_a_path_with_a_null_character_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"^engine\.tap: .*a path has no null character$"):
        Taps(Rings.private(4, 8), tmp_path / "tap\0.sock", 1)


async def test_without_a_path_there_is_no_door(tmp_path):
    taps = Taps(Rings.private(4, 8), None, 1)
    with taps.open():
        async with trio.open_nursery() as nursery:
            await taps.accept(nursery)
        taps.ring()
