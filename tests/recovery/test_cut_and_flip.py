"""A small log cut at every byte and flipped at every bit: what was promised survives or is named, none is invented."""

from __future__ import annotations

import pytest

from busd.world.store import Store
from tests.conftest import Cases
from tests.support.memory_disk import MemoryDisk
from tests.support.power import DEPTH
from tests.support.store_kit import PATH, Kit, Message, Tale, every, open_store, read_all

LOG = f"{PATH}/{1:020d}.log"
INDEX = f"{PATH}/{1:020d}.idx"


def small_log(clean: bool) -> Kit:
    """Five commits: one topic, several, headers, an end of stream, and a payload that is itself a whole record."""
    kit = Kit()
    kit.commit((b"a", b"one"), (b"a", b"two"))
    inside = kit.commit((b"a", b"x"), (b"b", b"y"), (b"a", b""))
    kit.commit((b"c", [b"payload", b"key", b"k1"]), (b"b", b"plain"), step=3)
    kit.commit((b"b", b""), flags="e")
    kit.commit((b"a", inside.record), (b"a", b"\r\n+B 00000000"))
    kit.commit((b"a", b"last"))
    if clean:
        kit.close()
    return kit


def batches(kit: Kit, data: bytes) -> list[tuple[int, int, list[Message]]]:
    """(from byte, to byte, messages) of each commit."""
    found = []
    rest = list(kit.kept)
    # The payload that looks like a record is not one: batches are told apart by what was committed.
    at = data.index(b"\n+B") + 1
    sizes = [2, 3, 2, 1, 2, 1]
    for count in sizes:
        size = 23 + int(data[at + 12 : at + 22])
        found.append((at, at + size, rest[:count]))
        rest, at = rest[count:], at + size
    assert rest == []
    return found


def reopen(disk: MemoryDisk, kit: Kit) -> tuple[Store, Tale]:
    """Open a damaged log and read all of it, twice, the second time after another start."""
    store = open_store(disk, next_offset=kit.next)
    tale = read_all(store, horizon=kit.next)
    again = open_store(disk.copy(), next_offset=kit.next)
    assert read_all(again, horizon=kit.next).messages == tale.messages
    assert read_all(again, horizon=kit.next).losses == tale.losses
    return store, tale


def check_goes_on(store: Store, kit: Kit, tale: Tale) -> None:
    """Whatever happened: the next commit is kept, and the old tale is still told."""
    more = Kit.__new__(Kit)
    more.disk, more.rule, more.next, more.now_ns, more.epoch, more.kept = MemoryDisk(), kit.rule, kit.next, 2000, 1, []
    more.store = store
    more.commit((b"z", b"afterwards"))
    later = read_all(store)
    assert later.messages == [*tale.messages, *more.kept]
    assert later.losses == tale.losses


def lost(tale: Tale) -> set[int]:
    """Every offset that a hole covers."""
    return {offset for hole in tale.holes for offset in range(hole.first, hole.last + 1)}


@pytest.mark.parametrize("hints", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_cut_at_every_byte(clean: bool, hints: bool, cases: Cases) -> None:
    kit = small_log(clean)
    data = kit.disk.contents()[LOG]
    parts = batches(kit, data)
    for size in range(len(data)):
        disk = kit.disk.copy()
        disk.set_contents(LOG, data[:size])
        if not hints:
            disk.delete(INDEX)
        store, tale = reopen(disk, kit)
        whole = [message for _, end, messages in parts if end <= size for message in messages]
        assert tale.messages == whole, f"cut at {size}"
        missing = {offset for offset, _, _ in kit.kept} - set(tale.offsets)
        if clean and hints and missing:
            # A page of the index says that they were synced: that is no torn write.
            assert missing <= lost(tale), f"cut at {size}"
            assert "corrupt" in " ".join(store.report)
            # The end of stream is at offset 10, and no message.
            assert sum(sum((hole.counts or {}).values()) for hole in tale.holes) == len(missing - {10})
        else:
            assert tale.losses == [], f"cut at {size}"
        check_goes_on(store, kit, tale)
        cases.add()


@pytest.mark.parametrize("hints", [True, False], ids=["index", "no index"])
@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "killed"])
def test_flip_every_bit(clean: bool, hints: bool, cases: Cases) -> None:
    kit = small_log(clean)
    data = kit.disk.contents()[LOG]
    parts = batches(kit, data)
    behind = parts[0][0]
    for position in range(len(data)):
        for bit in range(8) if position % 7 == 0 or DEPTH > 1 else (position % 8,):
            disk = kit.disk.copy()
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            disk.set_contents(LOG, bytes(flipped))
            if not hints:
                disk.delete(INDEX)
            store, tale = reopen(disk, kit)
            where = f"bit {bit} of byte {position}: {store.report}"
            hit = [number for number, (start, end, _) in enumerate(parts) if start <= position < end]
            assert set(texts(tale.messages)) <= set(texts(kit.kept)), where
            sound = [message for number, (_, _, some) in enumerate(parts) if number not in hit for message in some]
            if position >= behind and hints and clean:
                assert tale.messages == sound, where
            if hit:
                before = [message for _, _, some in parts[: hit[0]] for message in some]
                assert tale.messages[: len(before)] == before, where
                # Of the last commit nothing tells whether it was synced, unless the index was saved at a clean stop.
                if (clean and hints) or hit[0] < len(parts) - 1:
                    assert {offset for offset, _, _ in kit.kept} <= set(tale.offsets) | lost(tale), where
            assert store.report != [], where
            check_goes_on(store, kit, tale)
            cases.add()


def texts(messages: list[Message]) -> list[str]:
    """Messages as something that a set can hold."""
    return [repr(message) for message in messages]


def test_an_undamaged_log_is_clean() -> None:
    for clean in (True, False):
        kit = small_log(clean)
        store, tale = reopen(kit.disk.copy(), kit)
        assert store.report == []
        assert tale.messages == kit.kept
        assert tale.losses == []
        assert store.count(every, 1, kit.next) == len(kit.kept) - 1


def test_cut_bytes_are_kept_and_numbered() -> None:
    kit = small_log(clean=False)
    data = kit.disk.contents()[LOG]
    disk = kit.disk.copy()
    for number, name in enumerate(("cut", "cut.1")):
        disk.set_contents(LOG, data[:-3])
        store = open_store(disk, next_offset=kit.next)
        start = batches(kit, data)[-1][0]
        assert disk.contents()[f"{PATH}/{1:020d}.{name}"] == data[start:-3], number
        assert f"{LOG}:{start}: torn" in " ".join(store.report)
    assert open_store(disk, next_offset=kit.next).report == []
