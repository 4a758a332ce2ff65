"""Trees of empty files for the benchmarks, made fast or kept from the last run."""

import math
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple


def make_tree(root: Path, files: int, directories: int) -> None:
    """Empty files, spread evenly over directories that are nested two levels deep."""
    width = math.isqrt(max(directories - 1, 0)) + 1
    for number in range(directories):
        folder = root / f"d{number // width:03}" / f"d{number % width:03}"
        folder.mkdir(parents=True)
        fill(folder, files * (number + 1) // directories - files * number // directories)


def fill(folder: Path, files: int) -> None:
    """Make so many empty files; by descriptor, which takes two thirds of the time."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(files):
            os.mknod(f"f{number:05}", 0o644, dir_fd=fd)
    finally:
        os.close(fd)


def kept_or_made(kept: Path | None, folder: Path, files: int, directories: int) -> Path:
    """The tree to work on: `kept`, made where it is not there yet, or a new one in `folder`."""
    if kept and kept.exists():
        return kept.absolute()
    tree = kept.absolute() if kept else folder / "tree"
    # Under its own name only when it is whole: a run that was cut off leaves no half of a tree.
    part = tree.with_name(f"{tree.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    make_tree(part, files, directories)
    return part.rename(tree)


class Size(NamedTuple):
    """How large a tree is."""

    files: int
    directories: int


def size_of(tree: Path) -> Size:
    """Counted by find, which leaves the tree warm as well."""
    listing = subprocess.run(["find", tree, "-printf", "%y"], capture_output=True, check=True)
    return Size(listing.stdout.count(b"f"), listing.stdout.count(b"d"))
