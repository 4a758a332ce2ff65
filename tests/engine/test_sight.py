"""What a watcher sees of new files, in its own process and with the real watchfiles."""

import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.engine.disk import fingerprint
from daemon.engine.sight import sights
from daemon.sources.watcher import Ready, Watcher
from tests.engine.children import canary_of
from tests.engine.test_watcher import Ear

if TYPE_CHECKING:
    from daemon.engine.sight import Sight


@pytest.fixture(autouse=True)
def _state(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()


@pytest.fixture
def irregular(tree: Path) -> Iterator[list[bytes]]:
    """One name of each kind that is no file of this tree, a link on the way to one among them."""
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "a").write_text("x")
    (tree / "folder").mkdir()
    (tree / "link").symlink_to(outside / "a")
    (tree / "linked").symlink_to(outside)
    os.mkfifo(tree / "fifo")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tree / "socket"))
        yield [b"folder", b"link", b"linked/a", b"fifo", b"socket", b"absent", b"folder/absent"]


def see(tree: Path, path: str, *, probe: bool = True) -> "Sight | None":
    (seen,) = sights(bytes(tree), [os.fsencode(path)], probe=probe)
    return seen


@asynccontextmanager
async def listening(tree: Path, *, probe: bool = True) -> AsyncIterator[Ear]:
    """A watcher that is in place."""
    async with Watcher(bytes(tree), canary_of(tree), probe=probe) as watcher:
        ear = Ear(watcher, canary_of(tree))
        await ear.hear(Ready)
        yield ear


def test_regular_file(tree: Path) -> None:
    """The numbers of its fingerprint, and whether anybody has it open for writing."""
    (tree / "d").mkdir()
    with (tree / "d/a").open("w") as file:
        file.write("12345")
        file.flush()
        numbers = tuple(fingerprint((tree / "d/a").lstat()))
        assert numbers[0] == 5
        assert see(tree, "d/a") == (numbers, False)
    assert see(tree, "d/a") == (numbers, True)
    assert see(tree, "d/a", probe=False) == (numbers, None)


def test_nothing_else(tree: Path, irregular: list[bytes]) -> None:
    """Of anything else, and of a file behind a link, nothing is seen: a look has to tell."""
    assert list(sights(bytes(tree), irregular, probe=True)) == [None] * len(irregular)


async def test_new_file_is_seen(tree: Path) -> None:
    """A file that is new comes with what it shows, probed where that is asked for."""
    for probe in (True, False):
        (tree / "new").unlink(missing_ok=True)
        async with listening(tree, probe=probe) as ear:
            (tree / "made").write_text("x")
            (tree / "made").rename(tree / "new")
            await ear.hear_of("new")
            (seen,) = [seen for each in ear.told for path, seen in each.present if path == b"new"]
        numbers = tuple(fingerprint((tree / "new").lstat()))
        assert seen == (numbers, True if probe else None)


async def test_old_file_is_not(tree: Path) -> None:
    """One that was there before is named alone: it has a row, most likely."""
    (tree / "old").write_text("x")
    async with listening(tree) as ear:
        (tree / "old").write_text("y")
        await ear.hear_of("old")
        assert {seen for each in ear.told for _, seen in each.present} == {None}


async def test_new_names_of_other_kinds(tree: Path) -> None:
    """Neither a new folder nor a new link is a file that was seen."""
    async with listening(tree) as ear:
        (tree / "folder").mkdir()
        (tree / "link").symlink_to("/etc/passwd")
        await ear.hear_of("folder", "link")
        assert {seen for each in ear.told for _, seen in each.present} == {None}
