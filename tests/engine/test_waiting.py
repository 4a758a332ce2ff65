"""What a settling file waits for beside its own quiet, in words."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Settle, Watch
from daemon.engine.waiting import waits_for
from tests.engine.test_marking import put

NAME = "{name}.done"


def sentences(tree: Path, path: bytes, **settle: Any) -> list[tuple[str, bool | None, str]]:
    watch = Watch(name="incoming", path=tree, settle=Settle(quiet=0.0, **settle))
    return [tuple(condition) for condition in waits_for(watch, path)]  # type: ignore[misc]


def manifest(tree: Path, path: bytes) -> tuple[bool | None, str]:
    ((name, satisfied, sentence),) = sentences(tree, path, manifest="*.manifest")
    assert name == "manifest"
    return satisfied, sentence


def test_marker(tmp_path: Path) -> None:
    """It is not there, older than the file, or there."""
    put(tmp_path, b"d/x.csv")
    is_not = "Its marker 'x.csv.done' is not there."
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == [("marker", False, is_not)]
    (tmp_path / "d/x.csv.done").mkdir()
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == [("marker", False, is_not)]
    (tmp_path / "d/x.csv.done").rmdir()
    put(tmp_path, b"d/x.csv.done", b"", 1_000)
    older = "Its marker 'x.csv.done' is older than the file, and counts only when it is made anew."
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == [("marker", False, older)]
    (tmp_path / "d/x.csv.done").touch()
    there = [("marker", True, "Its marker 'x.csv.done' is there.")]
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == there


@pytest.mark.parametrize("settle", [{}, {"marker": NAME}, {"manifest": "*"}])
def test_nothing_to_wait_for(tmp_path: Path, settle: dict[str, str]) -> None:
    """A watch that asks for neither, and a file that is not there, wait for nothing."""
    put(tmp_path, b"a")
    assert sentences(tmp_path, b"a" if not settle else b"none", **settle) == []


def test_no_manifest(tmp_path: Path) -> None:
    """None names the file; one that cannot be used might."""
    put(tmp_path, b"d/a")
    put(tmp_path, b"other.manifest", b"other\n")
    none = "No manifest in its directory or above names it."
    assert manifest(tmp_path, b"d/a") == (False, none)
    put(tmp_path, b"d/x.manifest", b"a\n/b\n")
    fault = "'/b' is absolute; names start at the manifest's directory"
    words = f"{none} But 'd/x.manifest' cannot be used: line 2: {fault}."
    assert manifest(tmp_path, b"d/a") == (False, words)


def test_set_that_is_incomplete(tmp_path: Path) -> None:
    """How many members it has, and which are not there, not settled or newer."""
    put(tmp_path, b"a")
    put(tmp_path, b"b")
    put(tmp_path, b"x.manifest", b"a\nb\nc1\nc2\nc3\nc4\n\\n\\nn\n")
    lists = "Its manifest 'x.manifest' lists 7 members, of which"
    words = f"{lists} 5 are not there: 'c1', 'c2', 'c3', ..."
    assert manifest(tmp_path, b"a") == (False, words)
    for name in (b"c1", b"c2", b"c3", b"c4"):
        put(tmp_path, name)
    assert manifest(tmp_path, b"a")[1] == f"{lists} 1 is not there: 'n\\nn'."
    put(tmp_path, b"n\nn")
    os.utime(tmp_path / "x.manifest")
    with (tmp_path / "b").open("ab"):
        assert manifest(tmp_path, b"a")[1] == f"{lists} 1 has not settled itself: 'b'."
    for path in tmp_path.iterdir():
        os.utime(path, (1_000, 3_000 if path.name == "b" else 2_000))
    words = f"{lists} 1 was changed after it was written: 'b'."
    assert manifest(tmp_path, b"a") == (False, words)


def test_manifest_that_is_older(tmp_path: Path) -> None:
    """A file that is newer than its manifest is not what that speaks of."""
    put(tmp_path, b"x.manifest", b"a\n", 1_000)
    put(tmp_path, b"a")
    words = (
        "Its manifest 'x.manifest' is older than the file, and counts only when it is made anew."
    )
    assert manifest(tmp_path, b"a") == (False, words)


def test_set_that_is_complete(tmp_path: Path) -> None:
    """Nothing is missing, as far as can be known without reading the files."""
    put(tmp_path, b"a")
    put(tmp_path, b"1.manifest", b"a\nnever\n", 2**31)
    put(tmp_path, b"2.manifest", b"a\n")
    words = "Its manifest '2.manifest' and all of its members (1) are there"
    assert manifest(tmp_path, b"a") == (True, f"{words}.")
    put(tmp_path, b"2.manifest", hashlib.md5(b"other").hexdigest().encode() + b"  a\n")  # noqa: S324
    unknown = f"{words}; whether its checksums hold is not known."
    assert manifest(tmp_path, b"a") == (None, unknown)
