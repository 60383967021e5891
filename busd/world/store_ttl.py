"""The messages of a segment that have a ttl: which entries hold some, and when those run out.

It reads the file, in the trim thread.  It must not know what else is wanted of a segment.
"""

from __future__ import annotations

from collections.abc import Iterator

from busd.rules.envelope import BadRecord
from busd.rules.record import Batch
from busd.rules.scan import Window
from busd.rules.segment_index import SegmentIndex
from busd.rules.wanted import TTL_MARK, eighths, ends_of, has_ttl
from busd.world.disk import File
from busd.world.segment import reader_of


def with_ttl(file: File, size_bytes: int, index: SegmentIndex) -> Iterator[tuple[int, Batch]]:
    """Every entry that may hold messages with a ttl; `size_bytes`: of the segment."""
    window = Window(reader_of(file), size_bytes)
    for number, position in enumerate(index.positions):
        if number in index.holes:
            continue
        if TTL_MARK not in window.bytes_at(position, index.end_of(number) - position):
            continue
        try:
            record = window.record_at(position).record
        except BadRecord:
            continue
        if isinstance(record, Batch) and not record.control and has_ttl(record.flags, record.record):
            yield number, record


def ends_ns(file: File, size_bytes: int, index: SegmentIndex) -> list[int]:
    """Rising times at each of which another eighth of the ttls of a segment has run out."""
    if not index.headed:
        return []
    batches = [batch for _, batch in with_ttl(file, size_bytes, index)]
    return eighths([end_ns for batch in batches for end_ns in ends_of(batch) if end_ns is not None])
