"""Fault 28: real file systems on a device that drops writes or gives errors.  Needs root and the device mapper:
`make faults-root`, for a nightly run; skipped with the reason elsewhere.

    drop      from a moment on the device forgets all writes
    error     from a moment on it answers them with an error

Either way what was answered before is there after it is well again and mounted anew.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Cases
from tests.faults.conftest import Limited
from tests.support.server import read_lines
from tests.support.tools import need

SIZE_BYTES = 320 << 20
WANTED = os.environ.get("BUSD_FAULTS_ROOT") == "1"
pytestmark = pytest.mark.skipif(not WANTED, reason="needs root and the device mapper: make faults-root")


def sh(*words: str) -> str:
    """Run a command, return what it printed."""
    done = subprocess.run(words, capture_output=True, check=True, timeout=120)
    return done.stdout.decode().strip()


class Device:
    """A loop device behind a device-mapper target that can be changed, with a file system on it."""

    def __init__(self, place: Path, kind: str) -> None:
        self.kind = kind
        self.mount = place / "mnt"
        self.mount.mkdir()
        image = place / "image"
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        self.loop = sh("losetup", "--find", "--show", str(image))
        self.name = f"busd-{os.getpid()}-{kind}"
        self.sectors = SIZE_BYTES // 512
        sh("dmsetup", "create", self.name, "--table", self._table("linear"))
        sh(f"mkfs.{kind}", "-q", f"/dev/mapper/{self.name}")
        sh("mount", f"/dev/mapper/{self.name}", str(self.mount))

    def _table(self, how: str) -> str:
        if how == "linear":
            return f"0 {self.sectors} linear {self.loop} 0"
        # Up for no second, down for an hour: from now on.
        feature = {"drop": "1 drop_writes", "error": "1 error_writes"}[how]
        return f"0 {self.sectors} flakey {self.loop} 0 0 3600 {feature}"

    def become(self, how: str) -> None:
        """Change what becomes of writes from now on."""
        sh("dmsetup", "suspend", "--nolockfs", "--noflush", self.name)
        sh("dmsetup", "load", self.name, "--table", self._table(how))
        sh("dmsetup", "resume", self.name)

    def again(self) -> None:
        """As after a power cut: what the kernel holds is gone, and the device is well."""
        subprocess.run(["umount", "--force", str(self.mount)], capture_output=True)
        self.become("linear")
        sh("mount", f"/dev/mapper/{self.name}", str(self.mount))

    def close(self) -> None:
        """Take it down."""
        for words in (
            ["umount", "-l", str(self.mount)],
            ["dmsetup", "remove", "--retry", self.name],
            ["losetup", "-d", self.loop],
        ):
            subprocess.run(words, capture_output=True)


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    """A device with this file system, or the reason why there is none."""
    kind = request.param
    need("dmsetup", "losetup", f"mkfs.{kind}")
    if subprocess.run(["dmsetup", "version"], capture_output=True).returncode:
        pytest.skip("this kernel has no device mapper")
    if b"flakey" not in subprocess.run(["dmsetup", "targets"], capture_output=True).stdout:
        need("modprobe")
        if subprocess.run(["modprobe", "dm-flakey"], capture_output=True).returncode:
            pytest.skip("this kernel has no dm-flakey")
    made = Device(tmp_path, kind)
    yield made
    made.close()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["drop", "error"])
def test_a_device_that_stops_writing(device: Device, how: str, short_dir: Path, cases: Cases) -> None:
    with contextlib.closing(Limited(short_dir, ["--segment-bytes", "256k"])) as server:
        server.data = device.mount / "data"
        server.start()
        answered: dict[int, bytes] = {}
        with server.connect() as connection, contextlib.suppress(OSError, EOFError):
            for number in range(400):
                if number == 300:
                    device.become(how)
                connection.sendall(b"PUB t %d %b\n" % (number, b"x" * 3000))
                (answer,) = read_lines(connection, 1)
                if number < 300:
                    answered[int(answer[1:])] = b"%d " % number
                elif how == "error" and answer.startswith(b"-"):
                    assert answer.startswith((b"-DISK", b"-FULL")), answer
        server.kill()
        device.again()
        server.start()
        lines = server.ask(b"READ t\n", 60).splitlines()
        found = {int(line.split(b" ")[2]): line.split(b" ", 3)[3] for line in lines if line.startswith(b"MSG")}
        for offset, begin in answered.items():
            assert found[offset].startswith(begin), f"{offset} was answered, and is not there"
            cases.add()
        assert not [line for line in lines if line.startswith(b"GAP")]
        assert server.ask(b"PUB t again\n").startswith(b":")
