"""Where a channel lives: a directory, and the busd that serves it, which is started when nobody has.

    <directory>/<name>/busd.toml   what busd is told       log    what it says
                       busd.sock   where it listens        data   the messages
                       receiver    locked by the receiver

The server belongs to the process that started it and is stopped with it; who still uses the channel then starts
another.  Invariants:
1. At most one server has the directory (its own lock sees to that), and at most one process is the receiver.
2. When the process that started the server ends, in whatever way, the server stops in good order: a shell waits for
   the end of a pipe.  One that hangs is killed.  A child that was forked off has no part in it.
3. Once the last end in this process is closed, it starts no server any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from busd.words.topics import is_topic
from busd_client.address import Address, parse_address
from busd_client.channel_core import GROUP, Busy

# Settled messages leave the disk by whole files, so a channel keeps up to this more than it holds.
_SEGMENTS = 8
_MIN_SEGMENT_BYTES, _MAX_SEGMENT_BYTES = 1 << 20, 1 << 24
# As the settings of the server have it: told at once, where a server that does not start would be tried for 30 s.
_LEAST_BYTES = 16 << 10
# A start is some 300 ms; recovery of a long log on a slow disk is longer.
_START_S = 30.0
_LOOK_S = 0.02
# Who does not take connections for so long has a queue full of them: it is there, and hangs.
_ANSWER_S = 1.0
# A stop takes 10 s at most (the setting `stop`); a server that is not gone by then hangs, and is killed.
_STOP_S = 15.0
_KILLED_S = 5.0
# The server lives until a line comes by standard input, or the pipe has no writer; the shell as long as the server.
_KEEPER = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
(read -r _ <&3; kill "$server") &
watch=$!
wait "$server"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""


def _nothing() -> None:
    """There is no keeper."""


# Those of this process.
_keepers: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


def _forget_keepers() -> None:
    """In a child that was forked off: it keeps nothing, and ends nothing."""
    for keeper in list(_keepers):
        assert keeper.stdin is not None
        keeper.stdin.close()
    _keepers.clear()


os.register_at_fork(after_in_child=_forget_keepers)


def _end(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    if keeper.stdin.closed:
        return
    with contextlib.suppress(OSError), keeper.stdin as pipe:
        if keeper.poll() is None:
            # The end of the pipe is not enough: who was forked off without our knowledge may hold it, too.
            pipe.write(b"\n")
    try:
        keeper.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        # It would keep the directory from everybody; what it has written is safe.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(keeper.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            keeper.wait(_KILLED_S)


@dataclass(slots=True, weakref_slot=True)
class Place:
    """A channel's directory.  `max_bytes`: of its files, None for no limit; for the server, when this starts it."""

    directory: Path
    name: str
    max_bytes: int | None = None
    sync: str = "interval"
    _keeper: subprocess.Popen[bytes] | None = None
    # Ends the keeper; also when nobody has used, or closed, an end of the channel and both are gone.
    _ender: Callable[[], object] = _nothing
    _users: int = 0
    _left: bool = False
    _lock: int | None = None
    _starting: threading.Lock = field(default_factory=threading.Lock)
    address: Address = field(init=False)

    def __post_init__(self) -> None:
        if not is_topic(self.name.encode()) or self.name.startswith("_"):
            raise ValueError(f"{self.name!r} is not a channel's name: A-Z a-z 0-9 _ - and ., not _ at the beginning")
        if self.sync not in ("always", "interval", "never"):
            raise ValueError(f"{self.sync!r} is none of always, interval, never")
        if self.max_bytes is not None and self.max_bytes < _LEAST_BYTES:
            raise ValueError(f"max_bytes {self.max_bytes} is below 16k, the least a server takes")
        self.directory = Path(self.directory).absolute() / self.name
        self.address = parse_address(f"unix:{self.directory / 'busd.sock'}")

    def use(self) -> None:
        """One end of the channel in this process begins."""
        with self._starting:
            self._users += 1
            self._left = False

    def leave(self) -> None:
        """One end is closed; with the last one the server stops, if this process started it."""
        with self._starting:
            self._users -= 1
            self._left = self._users == 0
            if not self._left or self._keeper is None:
                return
            self._keeper = None
        self._ender()

    def ensure(self, wait_s: float = _START_S) -> None:
        """See to it that somebody serves it.  `wait_s` 0: only begin to, for those who try again anyway.

        Raises:
            OSError: it does not start; the text has the last line of its log.  Or every end was closed here meanwhile.
        """
        deadline_s = time.monotonic() + wait_s
        while not self._answers():
            with self._starting:
                if self._left:
                    raise OSError(f"the channel in {self.directory} was closed here")
                if self._keeper is None or self._keeper.poll() is not None:
                    self._keeper = self._start()
            if time.monotonic() >= deadline_s:
                if wait_s:
                    raise OSError(f"no busd serves {self.directory}: {self._last_words()}")
                return
            time.sleep(_LOOK_S)

    def claim(self) -> None:
        """Become the receiver, or stay it.

        Raises:
            Busy: somebody else is.
        """
        if self._lock is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / "receiver", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise Busy(f"the channel {self.name} in {self.directory.parent} has a receiver already") from None
        self._lock = lock

    def release(self) -> None:
        """Be the receiver no more."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_ANSWER_S)
            try:
                sock.connect(self.address.path)
            except TimeoutError:
                return True
            except OSError:
                return False
            return True

    def _start(self) -> subprocess.Popen[bytes]:
        self._ender()
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "busd.toml"
        # Under a name of its own first: another process may be at the same.
        draft = config.with_suffix(f".{os.getpid()}")
        draft.write_text(self.settings())
        draft.replace(config)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BUSD_")}
        # The child imports what we imported, from wherever that was.
        environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(one for one in sys.path if one))
        command = [sys.executable, "-m", "busd", "serve", "--config", str(config)]
        with open(self.directory / "log", "ab") as log:
            keeper = subprocess.Popen(
                ["/bin/sh", "-c", _KEEPER, "busd-channel", *command],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=environ, start_new_session=True, cwd=self.directory,
            )  # fmt: skip
        _keepers.add(keeper)
        self._ender = weakref.finalize(self, _end, keeper)
        return keeper

    def settings(self) -> str:
        """What the server is told, as TOML."""
        segment_bytes = _MAX_SEGMENT_BYTES
        caps = ""
        if self.max_bytes is not None:
            segment_bytes = max(_MIN_SEGMENT_BYTES, min(self.max_bytes // _SEGMENTS, _MAX_SEGMENT_BYTES))
            caps = f'max_bytes = {self.max_bytes}\nfull = "reject"\n'
        return (
            f'data = {_quoted(self.directory / "data")}\ntcp = ""\nunix = {_quoted(self.address.path)}\n'
            f'sync = "{self.sync}"\n\n[[store]]\nname = "channel"\nmatch = ["{self.name}"]\nretain = "acked"\n'
            f'groups = ["{GROUP}"]\nsegment_bytes = {segment_bytes}\n{caps}'
        )

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.directory / "log").read_text(errors="replace").splitlines()
            if lines:
                return lines[-1]
        return "it says nothing"


class Stay:
    """One end of a channel: it uses the place from its first use until it is closed, so that an end that nobody uses
    does not keep the server."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._used = False

    def begin(self) -> None:
        """The end is used; harmless when repeated."""
        if not self._used:
            self._used = True
            self._place.use()

    def end(self) -> None:
        """The end is closed.  May wait for the server to stop."""
        if self._used:
            self._used = False
            self._place.leave()


def _quoted(path: Path | str) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
