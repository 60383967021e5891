"""Files without a name: large ones go a piece at a time, nobody's contents are taken away, no descriptor is kept."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from busd.world import real_disk, reaper
from busd.world.real_disk import RealDisk
from busd.world.reaper import STEP_BYTES, Reaper, shrink
from tests.support.tools import ending, until

# Three pieces and a bit.
SIZE_BYTES = 3 * STEP_BYTES + 5


def nameless(path: Path, size_bytes: int = SIZE_BYTES, others: int = 0) -> list[int]:
    """Descriptors, each opened anew, of a file that had this name."""
    path.write_bytes(b"")
    os.truncate(path, size_bytes)
    opened = [os.open(path, os.O_RDONLY) for _ in range(1 + others)]
    path.unlink()
    return opened


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def wait_for_rest(one: Reaper, path: Path) -> None:
    """Until its thread is through with all that it was given: the descriptor it was given is closed before the first
    piece is cut."""
    (last,) = nameless(path, STEP_BYTES)
    one.close(last)
    until(lambda: not is_open(last), "its thread is at rest")


@pytest.fixture
def cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that this test's files are cut to, where the file system under the tests grants leases.  A thread of a
    test before may be cutting still."""
    sizes: list[int] = []
    truncate = os.ftruncate

    def noted(fd: int, size_bytes: int) -> None:
        truncate(fd, size_bytes)
        if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(tmp_path):
            sizes.append(os.fstat(fd).st_size)

    (probe,) = nameless(tmp_path / "probe", 1)
    writable = os.open(f"/proc/self/fd/{probe}", os.O_RDWR)
    os.close(probe)
    try:
        reaper._check_alone(writable)
    except OSError as error:
        pytest.skip(f"no lease of a file here: {error}")
    finally:
        os.close(writable)
    monkeypatch.setattr(os, "ftruncate", noted)
    return sizes


def test_a_large_file_goes_piece_by_piece(tmp_path: Path, cuts: list[int]) -> None:
    (fd,) = nameless(tmp_path / "f")
    seen: list[int] = []
    shrink(fd, lambda: seen.append(len(cuts)))
    assert cuts == [2 * STEP_BYTES + 5, STEP_BYTES + 5, 5]
    assert seen == [1, 2, 3], "a pause behind each"
    assert not is_open(fd)


def test_what_somebody_else_has_open_keeps_its_contents(tmp_path: Path, cuts: list[int]) -> None:
    fd, other = nameless(tmp_path / "f", others=1)
    shrink(fd, lambda: None)
    assert not is_open(fd)
    assert cuts == []
    assert os.fstat(other).st_size == SIZE_BYTES
    shrink(other, lambda: None)
    assert len(cuts) == 3, "the last one may"


def test_what_another_process_has_open_keeps_its_contents(tmp_path: Path, cuts: list[int]) -> None:
    fd, other = nameless(tmp_path / "f", others=1)
    code = f"import os, sys; sys.stdin.readline(); print(len(os.fdopen({other}, 'rb').read()))"
    with ending(
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(other,))
    ) as process:
        os.close(other)
        shrink(fd, lambda: None)
        assert process.communicate(b"\n", timeout=20)[0] == b"%d\n" % SIZE_BYTES
    assert cuts == []


@pytest.mark.parametrize("call", ["open", "fstat", "ftruncate", "fdatasync"])
@pytest.mark.usefixtures("cuts")
def test_what_cannot_be_cut_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    (fd,) = nameless(tmp_path / "f")
    opened = [fd]
    real_open = os.open

    def noted(path: str, flags: int) -> int:
        opened.append(real_open(path, flags))
        return opened[-1]

    def refused(*_: object) -> None:
        raise OSError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", noted)
        patch.setattr(os, call, refused)
        shrink(fd, lambda: None)
    assert len(opened) == (1 if call == "open" else 2)
    assert [fd for fd in opened if is_open(fd)] == []


def test_who_lets_go_does_not_wait(tmp_path: Path, cuts: list[int]) -> None:
    at, on = threading.Event(), threading.Event()

    def pause() -> None:
        at.set()
        on.wait(20)

    one = Reaper(pause)
    (fd,) = nameless(tmp_path / "f")
    one.close(fd)
    assert at.wait(20)
    assert cuts == [2 * STEP_BYTES + 5], "its thread is in the first pause"
    (second,) = nameless(tmp_path / "g")
    one.close(second)
    on.set()
    until(lambda: len(cuts) == 6 and not is_open(second), "both are gone")


def test_no_pause_while_another_file_waits(tmp_path: Path, cuts: list[int]) -> None:
    pauses: list[int] = []
    one = Reaper(lambda: pauses.append(len(cuts)))
    one._started = True
    for name in ("f", "g"):
        one.close(nameless(tmp_path / name)[0])
    threading.Thread(target=one._run, daemon=True).start()
    until(lambda: len(pauses) == 3, "the second one is cut in peace")
    assert pauses == [4, 5, 6]


def test_of_very_many_each_is_closed_as_it_is(tmp_path: Path, cuts: list[int]) -> None:
    one = Reaper(lambda: None)
    one._started = True
    waiting = [nameless(tmp_path / "f")[0] for _ in range(11)]
    for fd in waiting:
        one.close(fd)
    threading.Thread(target=one._run, daemon=True).start()
    until(lambda: not any(map(is_open, waiting)), "all are gone")
    wait_for_rest(one, tmp_path / "last")
    assert len(cuts) == 8 * 3, "behind the third no more than seven wait"


def test_what_fails_does_not_end_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Reaper(lambda: None)
    first, second = nameless(tmp_path / "f")[0], nameless(tmp_path / "g")[0]
    failed: list[int] = []

    def no_memory(fd: int) -> None:
        monkeypatch.undo()
        failed.append(fd)
        raise MemoryError

    monkeypatch.setattr(reaper, "_check_alone", no_memory)
    one.close(first)
    until(lambda: bool(failed) and not is_open(first), "it is closed")
    one.close(second)
    until(lambda: not is_open(second), "the next one, too")


def test_small_files_and_those_with_a_name_are_closed_at_once(tmp_path: Path) -> None:
    one = Reaper()
    (small,) = nameless(tmp_path / "f", 64 << 10)
    (tmp_path / "g").write_bytes(b"")
    os.truncate(tmp_path / "g", SIZE_BYTES)
    named = os.open(tmp_path / "g", os.O_RDONLY)
    for fd in (small, named):
        one.close(fd)
        assert not is_open(fd)
    assert not one._started
    assert (tmp_path / "g").stat().st_size == SIZE_BYTES


def test_of_one_piece_it_is_closed_in_the_thread(tmp_path: Path, cuts: list[int]) -> None:
    one = Reaper(lambda: None)
    (fd,) = nameless(tmp_path / "f", STEP_BYTES)
    one.close(fd)
    until(lambda: not is_open(fd), "it is closed")
    wait_for_rest(one, tmp_path / "last")
    assert one._started
    assert cuts == []


def test_without_a_thread_it_is_closed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    one = Reaper()
    (fd,) = nameless(tmp_path / "f")
    one.close(fd)
    assert not is_open(fd)


def test_python_ends_although_such_a_file_is_open(tmp_path: Path) -> None:
    code = (
        "import os, sys; from busd.world.real_disk import RealDisk; path = sys.argv[1];"
        "file = RealDisk().create(path); file.append([bytes(1 << 20)]); os.unlink(path)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "f")], timeout=20, capture_output=True, check=True
    )
    assert done.stderr == b""


def test_let_go_of_while_the_thread_is_started(tmp_path: Path) -> None:
    one = Reaper()
    (fd,) = nameless(tmp_path / "f")
    with one._starting:
        one.close(fd)
    assert not is_open(fd)


def test_a_file_of_the_disk_goes_that_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []

    class Noted(Reaper):
        def close(self, fd: int) -> None:
            taken.append((os.fstat(fd).st_nlink, os.fstat(fd).st_size))
            super().close(fd)

    monkeypatch.setattr(real_disk, "_reaper", Noted())
    disk, path = RealDisk(), str(tmp_path / "f")
    file = disk.create(path)
    file.append([bytes(5)])
    disk.remove(path)
    del file
    assert taken == [(0, 5)]
