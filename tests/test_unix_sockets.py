"""Unix sockets that listen: owner only, stale files replaced, files of others left alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import closing
from pathlib import Path

import pytest

from marketfeed.unix_sockets import MAX_PATH_BYTES, UnixListener, path_problem, peer_credentials

KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.sock"


def test_only_the_owner_can_connect_whatever_the_umask(path, kind):
    before = os.umask(0)
    try:
        with closing(UnixListener(path, kind, 1)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_a_peer_connects_and_its_credentials_are_the_kernels(path, kind):
    with closing(UnixListener(path, kind, 1)) as listener, socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))
        connection, _ = listener.sock.accept()
        with connection:
            assert peer_credentials(connection) == (os.getpid(), os.getuid())


def test_the_file_is_removed_at_the_end(path, kind):
    with closing(UnixListener(path, kind, 1)) as listener:
        assert path.is_socket()
        assert listener.problem() is None
    assert not path.exists()
    assert listener.sock.fileno() == -1


def test_a_stale_socket_is_replaced(path, kind):
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))
    with closing(UnixListener(path, kind, 1)), socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(str(path))


def test_a_socket_on_which_a_process_listens_is_left_alone(path, kind):
    with closing(UnixListener(path, kind, 1)) as first:
        with pytest.raises(OSError, match="another process is listening there") as raised:
            UnixListener(path, kind, 1)
        assert raised.value.errno == errno.EADDRINUSE
        assert first.problem() is None


def test_a_full_backlog_means_that_a_process_listens(path, kind):
    with closing(UnixListener(path, kind, 0)), socket.socket(socket.AF_UNIX, kind) as waiting:
        waiting.connect(str(path))
        with pytest.raises(OSError, match="another process is listening there"):
            UnixListener(path, kind, 1)


def test_a_file_of_another_kind_is_left_alone(path, kind):
    path.write_text("precious")
    with pytest.raises(OSError, match="a file that is not a socket exists there") as raised:
        UnixListener(path, kind, 1)
    assert raised.value.errno == errno.EEXIST
    assert path.read_text() == "precious"


def test_a_socket_that_replaced_ours_is_not_removed(path, kind):
    with closing(UnixListener(path, kind, 1)) as listener:
        path.rename(path.with_suffix(".old"))
        with socket.socket(socket.AF_UNIX, kind) as successor:
            successor.bind(str(path))
            assert listener.problem() == f"{path} is another process's now"
    assert path.exists()


def test_a_removed_file_is_a_problem_and_no_error_at_the_end(path, kind):
    with closing(UnixListener(path, kind, 1)) as listener:
        path.unlink()
        assert listener.problem() == f"{path}: No such file or directory"


def test_a_folder_that_is_not_there_leaves_no_socket_open(tmp_path, kind):
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        UnixListener(tmp_path / "nowhere" / "a.sock", kind, 1)
    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_that_a_socket_can_have(tmp_path):
    longest = tmp_path / ("x" * (MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1))
    assert path_problem(longest) is None
    with closing(UnixListener(longest, socket.SOCK_STREAM, 1)):
        assert longest.is_socket()
    problem = path_problem(Path(f"{longest}x"))
    assert problem == f"a Unix socket's path has at most 107 bytes with its folder, not {longest}x"
    missing = tmp_path / "nowhere" / "a.sock"
    assert path_problem(missing) == f"{missing}: there is no folder {missing.parent}"
    problem = path_problem(tmp_path / "a\0b")
    assert problem is not None
    assert problem.endswith("a path has no null character")
