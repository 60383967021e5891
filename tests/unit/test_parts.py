"""busd.rules.parts: bytes that go out as one."""

from __future__ import annotations

import pytest

from busd.rules.parts import Parts


@pytest.mark.parametrize("pieces", [(), (b"",), (b"head", b"body", b"\r\n"), (b"", b"a", b"")])
def test_parts_are_their_bytes(pieces: tuple[bytes, ...]) -> None:
    parts = Parts(*pieces)
    assert bytes(parts) == b"".join(pieces)
    assert (len(parts), bool(parts)) == (len(b"".join(pieces)), any(pieces))
    assert all(kept is piece for kept, piece in zip(parts.pieces, pieces, strict=True)), "none is copied"
