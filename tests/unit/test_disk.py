"""The disk: the real one on a temporary directory, its errors by kind, and that the memory one is no kinder."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from busd.world import real_disk
from busd.world.disk import Disk, DiskFailed, DiskFull, Locked, try_remove
from busd.world.real_disk import RealDisk
from tests.support.memory_disk import MemoryDisk


@pytest.fixture(params=["real", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Disk, str]:
    """A disk and a directory on it."""
    disk: Disk = RealDisk() if request.param == "real" else MemoryDisk()
    path = str(tmp_path / "a" / "b")
    disk.makedirs(path)
    disk.makedirs(path)
    return disk, path


def test_files(place: tuple[Disk, str]) -> None:
    disk, path = place
    file = disk.create(f"{path}/f")
    file.append([b"hello", b"", b" world"])
    file.sync()
    assert file.size() == 11
    assert (file.read(6, 5), file.read(6, 50), file.read(11, 5)) == (b"world", b"world", b"")
    assert file.read_now(0, 5) in (b"hello", None)
    file.truncate(5)
    file.append([b"!"])
    assert disk.read_file(f"{path}/f") == b"hello!"
    with pytest.raises(DiskFailed):
        disk.create(f"{path}/f")
    again = disk.open(f"{path}/f", writable=True)
    again.append([b"?"])
    disk.remove(f"{path}/f")
    disk.remove(f"{path}/f")
    assert file.read(0, 50) == b"hello!?", "a file without a name can be read by who has it"
    file.close()
    file.close()
    with pytest.raises(FileNotFoundError):
        disk.open(f"{path}/f")
    with pytest.raises(FileNotFoundError):
        disk.read_file(f"{path}/f")


def test_names(place: tuple[Disk, str]) -> None:
    disk, path = place
    disk.write_file(f"{path}/b", b"1")
    disk.write_file(f"{path}/a", b"2")
    disk.write_file(f"{path}/a", b"3")
    disk.makedirs(f"{path}/c")
    assert disk.listdir(path) == ["a", "b", "c"]
    assert (disk.exists(f"{path}/a"), disk.exists(f"{path}/c"), disk.exists(f"{path}/d")) == (True, True, False)
    disk.rename(f"{path}/a", f"{path}/b")
    disk.sync_dir(path)
    assert (disk.listdir(path), disk.read_file(f"{path}/b")) == (["b", "c"], b"3")
    total, free = disk.usage(path)
    assert total > free > 0


def test_many_pieces_and_large_ones(place: tuple[Disk, str]) -> None:
    disk, path = place
    pieces = [b"%d," % number for number in range(5000)] + [b"x" * 3_000_000]
    file = disk.create(f"{path}/f")
    file.append(pieces)
    assert disk.read_file(f"{path}/f") == b"".join(pieces)


def test_the_lock(place: tuple[Disk, str]) -> None:
    disk, path = place
    lock = disk.lock(f"{path}/LOCK")
    with pytest.raises(Locked) as caught:
        disk.lock(f"{path}/LOCK")
    assert caught.value.pid in (os.getpid(), 1)
    assert "held by process" in str(caught.value)
    lock.release()
    lock.release()
    disk.lock(f"{path}/LOCK").release()


def test_a_lock_file_that_tells_nothing(tmp_path: Path) -> None:
    disk, path = RealDisk(), str(tmp_path / "LOCK")
    lock = disk.lock(path)
    Path(path).write_text("")
    with pytest.raises(Locked, match="another process"):
        disk.lock(path)
    lock.release()


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writev = os.writev
    monkeypatch.setattr(os, "writev", lambda fd, parts: writev(fd, [bytes(parts[0])[:3]]))
    file = RealDisk().create(str(tmp_path / "f"))
    file.append([b"hello", b"world", b"!"])
    assert file.read(0, 99) == b"helloworld!"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EIO, DiskFailed),
        (errno.EROFS, DiskFailed),
    ],
)
def test_errors_by_kind_with_their_place(
    code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = RealDisk(), str(tmp_path / "f")
    file = disk.create(path)
    file.append([b"12345"])

    def fail(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    for name in ("writev", "ftruncate", "unlink", "replace", "mkdir", "pread", "preadv"):
        monkeypatch.setattr(os, name, fail)
    with pytest.raises(kind, match=f"{path}:5: {os.strerror(code)}"):
        file.append([b"x"])
    for attempt in (
        lambda: file.truncate(0),
        lambda: disk.remove(path),
        lambda: disk.rename(path, path + "2"),
        lambda: disk.makedirs(path + "dir"),
        lambda: file.read(0, 1),
    ):
        with pytest.raises(kind):
            attempt()
    assert not try_remove(disk, path)
    with pytest.raises(kind):
        disk.write_file(path, b"new")
    monkeypatch.undo()
    assert disk.read_file(path) == b"12345"


@pytest.mark.parametrize(("code", "kind"), [(errno.EMFILE, DiskFull), (errno.EIO, DiskFailed)])
def test_looking_around_fails_as_everything_does(
    code: int, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = RealDisk(), str(tmp_path / "f")
    file = disk.create(path)
    (tmp_path / "full").mkdir()
    disk.create(str(tmp_path / "full" / "f"))
    for wrong, error in ((path, NotADirectoryError), (path + "none", FileNotFoundError)):
        with pytest.raises(error):
            disk.listdir(wrong)
    with pytest.raises(DiskFailed, match=f"{path}: File exists"):
        disk.makedirs(path)
    disk.makedirs(path + "dir")
    for _ in range(2):
        disk.remove_dir(path + "dir")
    disk.remove_dir(str(tmp_path / "full"))
    assert disk.listdir(str(tmp_path)) == ["f", "full"]

    def fail(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    for name, attempt in (
        ("listdir", lambda: disk.listdir(path)),
        ("statvfs", lambda: disk.usage(path)),
        ("rmdir", lambda: disk.remove_dir(path)),
        ("fstat", file.size),
        ("fstat", file.used_bytes),
    ):
        monkeypatch.setattr(os, name, fail)
        with pytest.raises(kind) as told:
            attempt()
        monkeypatch.undo()
        assert str(told.value) == f"{path}: {os.strerror(code)}"


def test_every_failed_sync_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, path = RealDisk(), str(tmp_path / "f")
    file = disk.create(path)

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", fail)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFailed, match="fdatasync"):
        file.sync()
    with pytest.raises(DiskFailed, match="directory"):
        disk.sync_dir(str(tmp_path))
    with pytest.raises(DiskFailed, match="No such file"):
        disk.sync_dir(str(tmp_path / "removed by somebody"))
    # A descriptor that fails altogether is a failure of the disk, too.
    monkeypatch.setattr(os, "fstat", fail)
    monkeypatch.setattr(os, "writev", lambda fd, data: fail(fd))
    with pytest.raises(DiskFailed, match=f"{path}: fdatasync"):
        file.sync()
    with pytest.raises(DiskFull, match=f"{path}: No space"):
        file.append([b"x"])
    monkeypatch.undo()


def test_reads_that_would_wait_are_for_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealDisk().create(str(tmp_path / "f"))
    file.append([b"hello"])

    def wait(*args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "again")

    monkeypatch.setattr(os, "preadv", wait)
    assert file.read_now(0, 5) is None
    monkeypatch.setattr(real_disk, "_NOWAIT", 0)
    assert file.read_now(0, 5) is None


def test_room_for_a_large_record_is_given_back(tmp_path: Path) -> None:
    file = RealDisk().create(str(tmp_path / "f"))
    large = 16 << 20
    file.append([b"x" * large])
    tracemalloc.start()
    try:
        for length in (large, 3 << 20, 1 << 20, 5):
            found = file.read_now(0, length)
            if found is None:
                pytest.skip("not in the page cache, or no RWF_NOWAIT")
            assert found == b"x" * length
        del found
        assert tracemalloc.get_traced_memory()[0] < 2 * real_disk._KEPT_BYTES
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def small_files() -> Iterator[None]:
    """RLIMIT_FSIZE at 100 bytes; not a fixture, because pytest's own output may go to a file meanwhile."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_limit_of_the_process_is_a_full_disk(tmp_path: Path) -> None:
    file = RealDisk().create(str(tmp_path / "f"))
    file.append([b"x" * 60])
    with small_files(), pytest.raises(DiskFull, match=":100: "):
        file.append([b"y" * 60])
    assert file.size() == 100, "the part that fitted stands there until the caller cuts it off"
    file.truncate(60)
    assert file.read(0, 200) == b"x" * 60


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    disk = RealDisk()
    disk.write_file(str(tmp_path / "f"), b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        disk.open(str(tmp_path / "f"))
        disk.read_file(str(tmp_path / "f"))
        disk.sync_dir(str(tmp_path))
        disk.lock(str(tmp_path / "LOCK")).release()
    assert len(os.listdir("/proc/self/fd")) == before


class TestMemoryDiskCrashes:
    """The memory disk forgets what a real one may forget."""

    def disk(self) -> MemoryDisk:
        """One durable file, one unsynced append to it, one new file."""
        disk = MemoryDisk()
        disk.makedirs("/d")
        old = disk.create("/d/old")
        old.append([b"safe"])
        old.sync()
        disk.sync_dir("/d")
        old.append([b"1234"])
        disk.create("/d/new").append([b"56"])
        return disk

    def test_names_and_bytes(self) -> None:
        disk = self.disk()
        assert disk.crash(0, "lost").contents() == {"/d/old": b"safe"}
        assert disk.crash(1, "lost").contents() == {"/d/old": b"safe", "/d/new": b""}
        assert disk.crash(1, "kept").contents() == {"/d/old": b"safe1234", "/d/new": b"56"}
        assert disk.crash(1, "torn").contents() == {"/d/old": b"safe12", "/d/new": b"5"}
        assert disk.crash(0, "zeroed").contents() == {"/d/old": b"safe\0\0\0\0"}
        assert len(list(disk.crashes())) == 8
        assert disk.contents() == {"/d/old": b"safe1234", "/d/new": b"56"}

    def test_a_truncate_can_be_forgotten(self) -> None:
        disk = self.disk()
        disk.open("/d/old", writable=True).truncate(2)
        assert disk.crash(0, "lost").contents() == {"/d/old": b"safe"}
        assert disk.crash(0, "kept").contents() == {"/d/old": b"sa"}
        disk.remove("/d/old")
        assert disk.crash(1, "kept").contents() == {"/d/old": b"sa", "/d/new": b"56"}
        assert disk.crash(2, "kept").contents() == {"/d/new": b"56"}

    def test_calls_fail_by_number_and_by_kind(self) -> None:
        disk = MemoryDisk()
        disk.makedirs("/d")
        disk.fail_at, disk.short_bytes = 1, 2
        file = disk.create("/d/f")
        with pytest.raises(DiskFull):
            file.append([b"abc"])
        assert file.read(0, 9) == b"ab"
        disk.failure, disk.fail_all = DiskFailed("x"), {"sync"}
        for _ in range(2):
            with pytest.raises(DiskFailed):
                file.sync()
        assert disk.crash(1, "lost").contents() == {"/d/f": b""}
        assert disk.calls == ["create /d/f", "append /d/f", "sync /d/f", "sync /d/f"]
