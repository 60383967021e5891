"""Which decoder a connection gets.  The first byte decides, for good."""

from __future__ import annotations

from busd.rules.inline import InlineDecoder
from busd.rules.resp import RespDecoder
from busd.words.settings import Limits

RESP_FIRST_BYTE = b"*"


def decoder_for(first_byte: bytes, limits: Limits) -> InlineDecoder | RespDecoder:
    """The decoder of a connection whose first byte is `first_byte`; feed it that byte too."""
    return RespDecoder(limits) if first_byte[:1] == RESP_FIRST_BYTE else InlineDecoder(limits)
