"""Invariant: only BadRecord leaves the scanner, and what it gives validates.

`make fuzz` runs this with atheris for FUZZ_S seconds: `python atheris_scanner.py -max_total_time=60`.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from busd.rules.envelope import BadRecord, envelope
    from busd.rules.record import Batch
    from busd.rules.scan import Found, walk

KINDS = "BHSC"


def one_input(data: bytes) -> None:
    """The first byte says what the rest is: a file, or the inside of a record with a good checksum."""
    if not data:
        return
    kind, rest = data[0], data[1:]
    fields, _, body = rest.partition(b"\r\n")
    made = envelope(KINDS[kind & 3], fields, body) if kind & 4 else rest
    doubled = made + made if kind & 8 else made
    for step in walk(lambda at, length: doubled[at : at + length], 0, len(doubled), kind >> 4):
        if isinstance(step, Found) and isinstance(step.record, Batch):
            try:
                assert len(step.record.offsets()) == step.record.n == len(step.record.items())
            except BadRecord:
                continue


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
