"""What is put in a file's place between settling and its start is handed to no handler."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import Gate, Open


def _link(tree: Path) -> None:
    (tree / "d/a").rename(tree.parent / "kept")
    (tree / "d/a").symlink_to(tree.parent / "kept")


def _link_above(tree: Path) -> None:
    """The very same file, but by a way that leads out of the tree."""
    (tree / "d").rename(tree.parent / "elsewhere")
    (tree / "d").symlink_to(tree.parent / "elsewhere")


def _pipe(tree: Path) -> None:
    (tree / "d/a").unlink()
    os.mkfifo(tree / "d/a")


def _folder(tree: Path) -> None:
    (tree / "d/a").unlink()
    (tree / "d/a").mkdir()


def _another(tree: Path) -> None:
    st = (tree / "d/a").stat()
    (tree / "d/a").rename(tree.parent / "kept")
    (tree / "d/a").write_text("CONTENT\n")
    os.utime(tree / "d/a", ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("swap", [_link, _link_above, _pipe, _folder, _another])
async def test_not_handed_over(engine: Open, tree: Path, swap: Callable[[Path], None]) -> None:
    """The start looks at the disk once more, at every component; whatever the kind of handler."""
    gate = Gate()
    async with engine(gate) as rig:
        path = rig.write("d/a")
        await rig.send(path, "look")
        row = await rig.state(path, ["ready"])
        swap(tree)
        await rig.send(path, "start", version=row.version)
        assert (await rig.row(path)).state != "processing"
        assert gate.jobs.empty()
