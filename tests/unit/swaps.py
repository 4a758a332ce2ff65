"""What somebody may put in the place of a file below a root, between two looks at it."""

import os
from pathlib import Path


def link_file(root: Path, path: str) -> None:
    """A link to the very same file, which lies outside now."""
    (root / path).rename(root.parent / "moved")
    (root / path).symlink_to(root.parent / "moved")


def link_above(root: Path, path: str) -> None:
    """The very same file, but by a way that leads out of the tree."""
    first = root / Path(path).parts[0]
    first.rename(root.parent / "elsewhere")
    first.symlink_to(root.parent / "elsewhere")


def fifo(root: Path, path: str) -> None:
    """What blocks whoever opens it."""
    (root / path).unlink()
    os.mkfifo(root / path)


def folder(root: Path, path: str) -> None:
    """What can be opened, but not read."""
    (root / path).unlink()
    (root / path).mkdir()


def other_file(root: Path, path: str) -> None:
    """The same size and time, but another inode."""
    file = root / path
    before = file.stat()
    file.rename(root.parent / "kept")
    file.write_bytes(b"x" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


EACH = (link_file, link_above, fifo, folder, other_file)
