"""What every store promises about many new files at once: nothing shows that they are many."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon.core.model import Fingerprint
from daemon.store import StateCount, Store
from daemon.store.opening import open_store
from tests.contract.test_store import HOSTILE, Writer
from tests.engine.conftest import born, step_on


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path) as store:
        yield store


@pytest.mark.parametrize("odd", [None, 0, 70, 149])
async def test_many_new_files(store: Store, odd: int | None) -> None:
    """Rows and records come back as they went in, whether they are alike or one is not."""
    seen = Fingerprint(1, 2, 3, 4, 5)
    found = [
        born(f"d{n % 7}/{n}", n + 1, seen=seen._replace(ino=n), at=n, digest=f"sha256:{n}")
        for n in range(150)
    ]
    if odd is not None:
        after = replace(found[odd].after, rank=1, seen=None, state="done", due_at=None)
        found[odd] = replace(found[odd], after=after, guard="adopted", error="odd")
    writer = Writer(store)
    assert await writer.apply(*found) == [True] * len(found)
    assert await store.rows([each.after.key for each in found]) == [each.after for each in found]
    assert await store.owed(0, 200) == [record for _, record in writer.batch]


async def test_many_new_files_of_any_name(store: Store) -> None:
    """So they do whatever is in their names, also where those of most are UTF-8 and of some not."""
    names = [bytes([n]) for n in range(1, 256) if n != ord("/")]
    names += [chr(n).encode() for n in (0x80, 0x7FF, 0xD7FF, 0xE000, 0xFFFE, 0xFFFF, 0x10FFFF)]
    paths = sorted({*HOSTILE, *names, *[b"d" + name + b"/" + name for name in names]})
    found = [born(path, n) for n, path in enumerate(paths, 1)]
    writer = Writer(store)
    assert await writer.apply(*found) == [True] * len(found)
    assert await store.rows([each.after.key for each in found]) == [each.after for each in found]
    assert await store.owed(0, 999) == [record for _, record in writer.batch]


async def test_many_new_files_with_numbers_of_any_order(store: Store) -> None:
    """Nor does it matter which numbers they have, or what else is in the batch."""
    writer = Writer(store)
    known = [born(f"known/{n}", n) for n in range(1, 41)]
    await writer.apply(*known)
    ids = [*range(100, 150), *range(50, 99), 99, *range(300, 420, 3)]
    found = [born(f"{n}", n, seen=Fingerprint(-n, -(2**63), 2**63 - 1, n, 1)) for n in ids]
    moved = [step_on(each.after, "settle", "done") for each in known]
    batch = found[:70] + moved[:20] + found[70:110] + moved[20:] + found[110:]
    assert await writer.apply(*batch) == [True] * len(batch)
    assert await store.rows([each.after.key for each in batch]) == [each.after for each in batch]
    assert await store.owed(len(known), 999) == [record for _, record in writer.batch]


async def test_many_new_files_of_which_one_is_not(store: Store) -> None:
    """Where one of many paths has a row already, that one loses, and leaves nothing."""
    writer = Writer(store)
    first = born("50", 1)
    await writer.apply(first)
    found = [born(f"{n}", 2 + n) for n in range(100)]
    assert await writer.apply(*found) == [n != 50 for n in range(100)]
    found[50] = first
    assert await store.rows([each.after.key for each in found]) == [each.after for each in found]
    assert [r.file_id for r in await store.owed(0, 999)] == [1, *range(2, 52), *range(53, 102)]
    assert await store.counts() == [StateCount("incoming", "settling", 100)]
