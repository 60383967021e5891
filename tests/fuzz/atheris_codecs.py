"""Invariant: any bytes, cut anywhere, give what the whole gives; no exception leaves a decoder.

`make fuzz` runs this with atheris for FUZZ_S seconds: `python atheris_codecs.py -max_total_time=60`.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from busd.rules.inline import InlineDecoder
    from busd.rules.resp import RespDecoder

from busd.words.requests import Request
from busd.words.settings import Limits
from tests.support.flat import flat

LIMITS = (
    Limits(payload_bytes=64, line_bytes=210, headers=3, header_bytes=32, command_bytes=320),
    Limits(payload_bytes=8, line_bytes=12, headers=1, header_bytes=8, command_bytes=40),
)


def decoded(decoder: InlineDecoder | RespDecoder, pieces: list[bytes]) -> tuple[list[object], bool, bool]:
    """What comes out, whether something unfinished stays, and whether an end there is told."""
    requests: list[Request] = []
    for piece in pieces:
        requests += decoder.feed(piece)
        assert decoder.held_bytes >= 0
    unfinished = decoder.unfinished
    return flat(requests), unfinished, decoder.end() is not None


def one_input(data: bytes) -> None:
    """The first bytes choose the decoder, the limits and the cuts."""
    if len(data) < 4:
        return
    kind, first, second, rest = data[0], data[1], data[2], data[3:]
    limits = LIMITS[kind & 1]
    make = RespDecoder if kind & 2 else InlineDecoder
    low, high = sorted((first * len(rest) // 256, second * len(rest) // 256))
    whole = decoded(make(limits), [rest])
    assert decoded(make(limits), [rest[:low], rest[low:high], rest[high:]]) == whole
    assert decoded(make(limits), [rest[at : at + 1] for at in range(len(rest))]) == whole


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
