"""`data/groups.log`: the file, what it says of each group, and how it is made smaller.

`write` and `switch` belong to whoever holds the file: the loop, or for the length of one commit the thread that
commits.  `sync` and `secure` may run beside a `write`.  It must not know members or deliveries.
Invariants:
1. `states` change only by `take`, on the loop: it is what a restart would find of what is decided.
2. A write that fails leaves the file as it was; after a failed sync, or where that cannot be done, nothing is written
   any more (`failed`).
3. The file is replaced only by one that holds all it held, durably.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from busd.rules.group_records import (
    GroupsFound,
    GroupState,
    States,
    apply,
    frame_lines,
    read_groups,
    snapshot,
    snapshot_lines,
)
from busd.world.disk import Disk, DiskFailed, DiskFull, File, try_remove
from busd.world.reserve import Reserve
from busd.world.salvage import readable

# Below this a snapshot saves nothing that anybody would notice: it is read in 30 ms.
COMPACT_BYTES = 1 << 20
# How many times its snapshot the file may grow to: at most an eighth of what is written goes into snapshots.
COMPACT_TIMES = 8
# About what a snapshot takes for a group, and for a span of what is not settled.
_GROUP_BYTES = 100
_SPAN_BYTES = 16


class GroupLog:
    """See the module.

    `states`: of each group; `bytes`: size of the file; `report`: what opening found, a line each; `failed`: why nothing
    can be written any more, empty while it can; `owed`: groups whose deliveries could not be written (no room): the
    next write begins with all that is known of them; `saved`: a snapshot that waits for `switch`, or None.
    """

    def __init__(self, disk: Disk, data_dir: str) -> None:
        """Open the file, or make it; waits for the disk.

        Raises:
            DiskFull, DiskFailed, OSError: it cannot be read or made.
        """
        self.path = f"{data_dir}/groups.log"
        self.states: States = {}
        self.report: list[str] = []
        self.failed = ""
        self.owed: set[bytes] = set()
        self.reserve = Reserve(disk, f"{data_dir}/reserve")
        self._disk = disk
        self._dir = data_dir
        # Frames written since a snapshot was begun; None while none is.
        self._since: list[bytes] | None = None
        self.saved: File | None = None
        self._file = self._open()
        self.bytes = self._synced_bytes = self._file.size()
        self._compact_at = COMPACT_BYTES
        if self.due:
            self._replace(b"".join(snapshot(self.states)))

    # Opening.

    def _open(self) -> File:
        disk, path = self._disk, self.path
        try_remove(disk, self._temporary)
        if not disk.exists(path):
            file = disk.create(path)
            disk.sync_dir(self._dir)
            return file
        file = disk.open(path, writable=True)
        data = readable(file, 0, file.size())
        found = read_groups(data)
        self.states = found.states
        if found.flaws:
            return self._renewed(file, data, found)
        if found.good_bytes < len(data):
            self.report.append(f"{path}:{found.good_bytes}: torn, {len(data) - found.good_bytes} bytes cut off")
            self._keep_cut(data[found.good_bytes :])
            file.truncate(found.good_bytes)
        file.sync()
        return file

    def _renewed(self, file: File, data: bytes, found: GroupsFound) -> File:
        """What was damaged is replaced by what it was understood to mean, or the next start would guess anew."""
        lines = [f"{self.path}:{flaw.position}: corrupt, {flaw.detail}" for flaw in found.flaws]
        self.report += [*lines, f"{self.path}: what groups had out then comes back to them"]
        self._keep_cut(data)
        try:
            self._disk.write_file(self.path, b"".join(snapshot(self.states)))
        except DiskFull as error:
            self.report.append(f"{self.path}: not written anew: {error}")
            file.truncate(found.good_bytes)
            file.sync()
            return file
        return self._disk.open(self.path, writable=True)

    def _keep_cut(self, data: bytes) -> None:
        target = base = f"{self._dir}/groups.cut"
        number = 0
        while self._disk.exists(target):
            number += 1
            target = f"{base}.{number}"
        try:
            self._disk.write_file(target, data)
            self.report.append(f"{target}: {len(data)} bytes that were there are kept here")
        except DiskFull as error:
            self.report.append(f"{len(data)} bytes that were there could not be kept: {error}")

    # Writing.

    def frame(self, lines: Sequence[bytes]) -> bytes:
        """What is to be written for these lines now; nothing when there are none and nothing is owed."""
        if self.owed:
            owed = [(name, self.states[name]) for name in self.owed if name in self.states]
            lines = [*(line for name, state in owed for line in snapshot_lines(name, state)), *lines]
        return frame_lines(lines) if lines else b""

    def write(self, frame: bytes) -> None:
        """Append; not synced.

        Raises:
            DiskFull: also with what the reserve gave; the file is as it was, try again another time.
            DiskFailed: and so will every later call.
        """
        self._check()
        while True:
            try:
                self._file.append((frame,))
                break
            except Exception as error:
                self._cut_back(self.bytes)
                if not isinstance(error, DiskFull):
                    self._fail(error)
                self._check()
                if not self.reserve.give_up():
                    raise
        self.bytes += len(frame)
        self.owed.clear()
        if self._since is not None:
            self._since.append(frame)

    def _check(self) -> None:
        if self.failed:
            raise DiskFailed(self.failed)

    def _fail(self, error: Exception) -> None:
        self.failed = self.failed or str(error)

    def _cut_back(self, size_bytes: int) -> None:
        try:
            self._file.truncate(size_bytes)
        except Exception as error:
            self._fail(error)

    @property
    def dirty(self) -> bool:
        """True when something was written and not synced."""
        return self._synced_bytes != self.bytes and not self.failed

    def sync(self) -> None:
        """Wait until all that was written before this call is durable.

        Raises:
            DiskFailed: nobody can tell any more what is; nothing is written from now on.
        """
        self._check()
        file, size = self._file, self.bytes
        try:
            file.sync()
        except Exception as error:
            self._fail(error)
            raise DiskFailed(str(error)) from error
        if file is self._file:
            self._synced_bytes = size

    def secure(self) -> None:
        """What is taken outlives a power cut, for what cannot be taken back: messages that go because of it.

        Raises:
            DiskFailed: nobody can tell whether it does.
        """
        self._check()
        if self.dirty:
            self.sync()

    def undo(self, size_bytes: int, why: str) -> None:
        """Nothing is written any more; take back what came behind `size_bytes`, as far as the disk lets us."""
        self.failed = self.failed or why
        if self.bytes > size_bytes:
            self._cut_back(size_bytes)
            self.bytes = size_bytes

    def take(self, lines: Sequence[bytes]) -> None:
        """What these lines say is decided.

        Raises:
            BadRecord: they make no sense; those before it are taken.
        """
        for line in lines:
            apply(self.states, line)

    # Smaller.

    @property
    def _temporary(self) -> str:
        return self.path + ".tmp"

    @property
    def due(self) -> bool:
        """True when a snapshot is worth it and none is under way."""
        if self.bytes <= self._compact_at or self._since is not None or self.owed or self.failed:
            return False
        spans = sum([len(state.unsettled) for state in self.states.values()])
        self._look_again(_GROUP_BYTES * len(self.states) + _SPAN_BYTES * spans)
        return self.bytes > self._compact_at

    def _look_again(self, snapshot_bytes: int) -> None:
        self._compact_at = max(COMPACT_BYTES, COMPACT_TIMES * snapshot_bytes)

    def begin_snapshot(self) -> Callable[[], None]:
        """What is known now, to be written to another file by the result, in a thread.  From now on all that is
        written is remembered for `switch`; nothing may be on its way that is written and not taken."""
        states = {name: state.copy() for name, state in self.states.items()}
        self._since = []
        return lambda: self._save(states)

    def _save(self, states: dict[bytes, GroupState]) -> None:
        try_remove(self._disk, self._temporary)
        file = self._disk.create(self._temporary)
        file.append([b"".join(snapshot(states))])
        file.sync()
        self.saved = file

    def switch(self) -> None:
        """The snapshot and what was written since take the place of the file.  Waits for the disk.

        Raises:
            DiskFull, DiskFailed: before the file has another name: the old one goes on, `give_up_snapshot`; else
            nothing is written any more.
        """
        file, since = self.saved, self._since
        assert file is not None
        assert since is not None
        self.saved = None
        file.append(since)
        file.sync()
        self._disk.rename(self._temporary, self.path)
        try:
            self._disk.sync_dir(self._dir)
        except Exception as error:
            # A power cut may bring the old file back, without what will be written to this one.
            self._fail(error)
            raise DiskFailed(str(error)) from error
        finally:
            # Not before: as long as the old file may come back, it is the one that `secure` has to sync.
            self._adopt(file)

    def _adopt(self, file: File) -> None:
        self._file = file
        self._since = None
        self.bytes = self._synced_bytes = file.size()
        self._look_again(self.bytes)

    def give_up_snapshot(self) -> None:
        """It could not be written: the old file goes on, and for a while longer."""
        self.saved, self._since = None, None
        self._compact_at = self.bytes + COMPACT_BYTES
        try_remove(self._disk, self._temporary)

    def _replace(self, data: bytes) -> None:
        """The same at once, when nobody waits."""
        try:
            self._disk.write_file(self.path, data)
        except DiskFull:
            self._compact_at = self.bytes + COMPACT_BYTES
            return
        self._adopt(self._disk.open(self.path, writable=True))

    def close(self) -> None:
        """All that was written is durable.

        Raises:
            DiskFull, DiskFailed: it may not be.
        """
        if self.owed:
            self.write(self.frame(()))
        self.sync()
        self._file.close()
