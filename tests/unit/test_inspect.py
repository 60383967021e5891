"""Looking at a data directory offline: counts, the damaged spot, messages in order over all stores."""

from __future__ import annotations

from dataclasses import replace

from busd.rules.group_records import frame_lines, line_done, line_new, line_out
from busd.words.settings import StoreRule
from busd.world.inspect import Finding, messages, verify
from tests.support.memory_disk import MemoryDisk
from tests.support.store_kit import Kit, batch_of, only, open_store

SMALL = StoreRule(segment_bytes=4096)


def kinds(found: list[Finding]) -> list[str]:
    """Kinds of the findings."""
    return [one.kind for one in found]


def filled() -> Kit:
    """Three segments, stopped."""
    kit = Kit(rule=SMALL)
    for number in range(20):
        kit.now_ns += 1
        kit.commit((b"a", b"%d" % number + b"." * 300), (b"b", [b"x", b"key", b"k"]))
    kit.commit((b"b", b""), flags="e")
    kit.close()
    return kit


def test_a_sound_directory() -> None:
    kit = filled()
    found = list(verify(kit.disk, "/data"))
    assert kinds(found) == ["segment"] * len(found)
    assert len(found) >= 2
    assert sum(one.messages for one in found) == 40
    # Twenty-one batches and the mark of the clean stop.
    assert sum(one.records for one in found) == 22
    assert sum(one.bytes for one in found) == sum(
        len(data) for path, data in kit.disk.contents().items() if path.endswith(".log")
    )
    assert not any(one.bad for one in found)


def test_nothing_is_touched() -> None:
    kit = filled()
    path = max(path for path in kit.disk.contents() if path.endswith(".log"))
    kit.disk.set_contents(path, kit.disk.contents()[path][:-5])
    before, calls = kit.disk.contents(), len(kit.disk.calls)
    assert list(verify(kit.disk, "/data"))
    assert list(messages(kit.disk, "/data"))
    assert (kit.disk.contents(), len(kit.disk.calls)) == (before, calls)


def test_the_damaged_spot_is_named() -> None:
    kit = filled()
    path = min(path for path in kit.disk.contents() if path.endswith(".log"))
    data = bytearray(kit.disk.contents()[path])
    spot = data.index(b"\n+B", 600) + 1
    data[spot + 100] ^= 1
    kit.disk.set_contents(path, bytes(data))
    bad = [one for one in verify(kit.disk, "/data") if one.bad]
    assert [(one.path, one.position) for one in bad] == [(path, spot)]
    assert str(bad[0]).startswith(f"{path}:{spot}: corrupt: crc")
    warned: list[Finding] = []
    left = list(messages(kit.disk, "/data", warn=warned.append))
    assert warned == bad
    assert len(left) == 38


def test_torn_corrupt_missing_foreign() -> None:
    kit = Kit(rule=SMALL)
    for _ in range(30):
        kit.commit((b"a", b"." * 500))
    paths = sorted(path for path in kit.disk.contents() if path.endswith(".log"))
    kit.disk.set_contents(paths[-1], kit.disk.contents()[paths[-1]] + b"+B 0000")
    kit.disk.delete(paths[1])
    kit.disk.set_contents(paths[0].replace("logs/main/0", "logs/main/x"), b"?")
    found = list(verify(kit.disk, "/data"))
    assert kinds([one for one in found if one.kind != "segment"]) == ["foreign", "corrupt", "torn"]
    assert "should come before it" in found[2].text
    assert [one.bad for one in found if one.kind in ("torn", "foreign")] == [False, False]
    kit.disk.set_contents(paths[2], b"")
    kit.disk.delete(paths[2].replace(".log", ".idx"))
    assert "the file is empty" in " ".join(one.text for one in verify(kit.disk, "/data"))
    kit.disk.set_contents(paths[2], kit.disk.contents()[paths[0]])
    assert "it is the segment that begins at 1" in " ".join(one.text for one in verify(kit.disk, "/data"))


def test_holes_are_shown_and_leftovers_passed() -> None:
    kit = Kit(rule=replace(SMALL, max_bytes=16384, keep_last=1))
    kit.commit((b"rare", b"kept"), (b"a", b"-"))
    for _ in range(60):
        kit.commit((b"a", b"." * 500))
    kit.trim()
    found = list(verify(kit.disk, "/data"))
    assert next(one.text for one in found if one.kind == "hole").startswith("trimmed, ")
    # A segment that was merged, left behind by a crash.
    merged = f"/data/logs/main/{5:020d}.log"
    kit.disk.set_contents(merged, b"old")
    assert [one.path for one in verify(kit.disk, "/data") if one.kind == "leftover"] == [merged]
    assert [message[0] for message in messages(kit.disk, "/data", wanted=only(b"rare"))] == [1]


def test_messages_of_all_stores_in_order() -> None:
    kit = Kit()
    other = open_store(kit.disk, path="/data/logs/other", next_offset=1)
    for number in range(6):
        kit.next = 2 * number + 1
        kit.commit((b"a", b"%d" % number))
        batch = batch_of([(b"b", [b"p", b"key", b"v"])], 2 * number + 2, other.last, 0)
        other.write(None, [batch.record])
        other.landed([batch], None, None)
    other.close(20, 1)
    found = list(messages(kit.disk, "/data"))
    assert [message[0] for message in found] == list(range(1, 13))
    assert found[0] == (1, 1000, b"a", b"0", ())
    assert found[1] == (2, 1000, b"b", b"p", ((b"key", b"v"),))
    assert [message[0] for message in messages(kit.disk, "/data", start=8, wanted=only(b"b"))] == [8, 10, 12]
    assert list(messages(MemoryDisk(), "/nothing")) == []


def test_start_within_a_batch_and_skipping_segments() -> None:
    kit = filled()
    assert [message[0] for message in messages(kit.disk, "/data", start=36)] == [36, 37, 38, 39, 40]


def test_group_records_are_checked_too() -> None:
    kit = filled()
    frames = [frame_lines([line]) for line in (line_new(b"g", (b">",), 0, 1, 7), line_out(b"g", 3, 1, [(1, 2)]))]
    frames.append(frame_lines([line_done(b"g", [(1, 1)])]))
    path, whole = "/data/groups.log", b"".join(frames)
    kit.disk.set_contents(path, whole)
    assert set(kinds(list(verify(kit.disk, "/data")))) == {"segment"}
    at = len(frames[0])
    kit.disk.set_contents(path, whole[:at] + b"?" + whole[at + 1 :] + b"+G torn")
    before = kit.disk.contents()
    corrupt, torn = [one for one in verify(kit.disk, "/data") if one.kind != "segment"]
    assert (corrupt.kind, corrupt.path, corrupt.position, corrupt.bytes, corrupt.bad) == (
        "corrupt",
        path,
        at,
        len(frames[1]),
        True,
    )
    assert (torn.kind, torn.position, torn.bytes, torn.bad) == ("torn", len(whole), 7, False)
    assert kit.disk.contents() == before
