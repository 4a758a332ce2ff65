"""The folders that a configuration names, compared with the disk and with each other.

A tree that holds the daemon's own files would hand it its own writes as news, for ever; opening and
closing the database as if it were a file to process would even drop SQLite's locks.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

from daemon.config_report import Finding, dotted
from daemon.toml_lines import Location


class Tree(NamedTuple):
    """A watched folder; all paths here are absolute and without symbolic links."""

    at: Location
    path: Path
    create: bool


class Own(NamedTuple):
    """A place that the daemon writes to. Nothing may be watched inside one that is `private`."""

    at: Location
    path: Path
    what: str
    private: bool = False


def misplaced(trees: Sequence[Tree], own: Sequence[Own]) -> Iterator[Finding]:
    """Everything that is wrong with where the folders are."""
    for tree in trees:
        yield from _absent(tree)
    for first, second in combinations(trees, 2):
        yield from _overlap(first, second)
    for tree, place in product(trees, own):
        yield from _mixed(tree, place)


def _absent(tree: Tree) -> Iterator[Finding]:
    try:
        mode = tree.path.stat().st_mode
    except FileNotFoundError:
        if not tree.create:
            remedy = "create it, or set create = true"
            yield Finding(tree.at, f"there is no folder {_shown(tree.path)}", remedy)
    except OSError as error:
        found = f"{_shown(tree.path)} cannot be looked at: {error.strerror}"
        yield Finding(tree.at, found, "name a folder that can be read")
    else:
        if not stat.S_ISDIR(mode):
            yield Finding(tree.at, f"{_shown(tree.path)} is not a folder", "name a folder")


def _overlap(first: Tree, second: Tree) -> Iterator[Finding]:
    if first.path.is_relative_to(second.path) or second.path.is_relative_to(first.path):
        found = f"{_shown(second.path)} overlaps with {_shown(first.path)}, {dotted(first.at)}"
        yield Finding(second.at, found, "watch folders of which none is inside another")


def _mixed(tree: Tree, own: Own) -> Iterator[Finding]:
    if own.path.is_relative_to(tree.path):
        found = f"{own.what} {_shown(own.path)} is inside the watched folder {_shown(tree.path)}"
        yield Finding(own.at, found, "put it outside of every watched folder")
    elif own.private and tree.path.is_relative_to(own.path):
        found = f"{_shown(tree.path)} is inside {own.what} {_shown(own.path)}"
        yield Finding(tree.at, found, "watch a folder outside of it")


def _shown(path: Path) -> str:
    return repr(os.fspath(path))
