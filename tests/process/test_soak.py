"""Publishers at twice the pace of the readers, a cap of 64 MB, a limit on memory: refused or dropped by policy, never
dead, and no growth.

BUSD_SOAK_S: how long (a minute here; `make soak-load` runs an hour and draws it: tests/support/soak.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.soak import Soak, drawn

SOAK_S = float(os.environ.get("BUSD_SOAK_S", "60"))


@pytest.mark.timeout(SOAK_S + 120)
def test_a_soak_at_twice_the_pace_of_the_readers(short_dir: Path) -> None:
    soak = Soak(short_dir, SOAK_S)
    soak.run()
    picture = os.environ.get("BUSD_SOAK_SVG", "")
    if picture:
        Path(picture).write_text(drawn(soak))
    # By policy: `block` holds its publisher to the pace of the group (or refuses it), while the one whose oldest files
    # go is never held; live readers are told of gaps.
    assert 0 < soak.published("jobs.a") < 0.9 * soak.published("log.a")
    assert soak.gaps > 0
    # What the group acknowledged, and what it has still, is all that was kept for it: nothing is lost, nothing twice.
    assert soak.group_missing == 0
    assert soak.slow_missing == 0
    # Flat: the last third beside the middle one.
    third = len(soak.samples) // 3
    middle = max(one.resident_bytes for one in soak.samples[third : 2 * third])
    last = max(one.resident_bytes for one in soak.samples[2 * third :])
    assert last - middle < 8 << 20, f"{middle >> 20} MiB, then {last >> 20}"
    assert max(one.log_bytes for one in soak.samples) <= 64 << 20
    assert max(one.descriptors for one in soak.samples[third:]) - soak.samples[third].descriptors < 20
    assert soak.exit_status == 0
    assert "error" not in soak.told
