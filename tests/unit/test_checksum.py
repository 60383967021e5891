"""The checksum of the log is zlib's, whoever computes it."""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Callable, Iterator

import pytest

from busd.rules import checksum

DATA = bytes(range(256)) * 300


@pytest.fixture(params=["as installed", "without isal"])
def crc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    if request.param == "without isal":
        for name in ("isal", "isal.isal_zlib"):
            monkeypatch.setitem(sys.modules, name, None)
        importlib.reload(checksum)
        assert checksum.crc32 is zlib.crc32
    yield checksum.crc32
    monkeypatch.undo()
    importlib.reload(checksum)


@pytest.mark.usefixtures("crc")
def test_it_is_zlibs() -> None:
    """For any length, from any place in memory, and piece by piece."""
    for size in [*range(300), 4095, 65_537, len(DATA)]:
        for at in (0, 1, 7):
            piece = memoryview(DATA)[at : at + size]
            assert checksum.crc32(piece) == zlib.crc32(piece)
            assert checksum.crc32(piece, 0xDEADBEEF) == zlib.crc32(piece, 0xDEADBEEF)
    assert checksum.crc32(DATA[100:], checksum.crc32(DATA[:100])) == zlib.crc32(DATA)
