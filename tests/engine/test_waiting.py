"""What a settling file waits for beside its own quiet, in words."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Settle, Watch
from daemon.core.model import Key, Row, State
from daemon.core.settle import Condition
from daemon.engine.disk import seen_at
from daemon.engine.inventory import READ, Rows
from daemon.engine.waiting import speaks_for, waits_for
from tests.engine.test_marking import put

NAME = "{name}.done"


def sentences(tree: Path, path: bytes, **settle: Any) -> list[tuple[str, bool | None, str]]:
    found = waits_for(watched(tree, **settle), path, nothing_known)
    return [(one.name, one.satisfied, one.sentence) for one in found]


def watched(tree: Path, **settle: Any) -> Watch:
    return Watch(name="incoming", path=tree, settle=Settle(quiet=0.0, **settle))


def nothing_known(_path: bytes) -> Row | None:
    return None


def on_record(tree: Path, **states: State) -> Rows:
    """Rows of what files are now, by name."""

    def rows(path: bytes) -> Row | None:
        seen = seen_at(bytes(tree) + b"/" + path)
        state = states.get(path.decode())
        return Row(1, Key("incoming", path), state=state, seen=seen) if state else None

    return rows


def condition_of(tree: Path, path: bytes, rows: Rows = nothing_known) -> Condition:
    watch = watched(tree, manifest="*.manifest")
    (found,) = speaks_for(watch, path, rows) or waits_for(watch, path, rows)
    assert found.name == "manifest"
    return found


def manifest(tree: Path, path: bytes) -> tuple[bool | None, str]:
    found = condition_of(tree, path)
    return found.satisfied, found.sentence


def test_marker(tmp_path: Path) -> None:
    """It is not there, older than the file, or there."""
    put(tmp_path, b"d/x.csv")
    is_not = "Its marker 'd/x.csv.done' is not there."
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == [("marker", False, is_not)]
    (tmp_path / "d/x.csv.done").mkdir()
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == [("marker", False, is_not)]
    (tmp_path / "d/x.csv.done").rmdir()
    put(tmp_path, b"d/x.csv.done", b"", 1_000)
    older = "is older than the file, and counts only when it is made anew."
    said = [("marker", False, f"Its marker 'd/x.csv.done' {older}")]
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == said
    (tmp_path / "d/x.csv.done").touch()
    there = [("marker", True, "Its marker 'd/x.csv.done' is there.")]
    assert sentences(tmp_path, b"d/x.csv", marker=NAME) == there


@pytest.mark.parametrize("settle", [{}, {"marker": NAME}, {"manifest": "*"}])
def test_nothing_to_wait_for(tmp_path: Path, settle: dict[str, str]) -> None:
    """A watch that asks for neither, and a file that is not there, wait for nothing."""
    put(tmp_path, b"a")
    assert sentences(tmp_path, b"a" if not settle else b"none", **settle) == []


def test_digest(tmp_path: Path) -> None:
    """Where a watch goes by content its files are read first; how far that is nobody else knows."""
    put(tmp_path, b"a")
    watch = Watch(name="incoming", path=tmp_path, identity="content")
    (one,) = waits_for(watch, b"a", nothing_known)
    assert (one.name, one.satisfied) == ("digest", None)


@pytest.mark.parametrize("name", [b"a.manifest", b"a.done"])
def test_a_sign_that_was_a_file_before(tmp_path: Path, name: bytes) -> None:
    """Its row is of before the watch knew of signs: it never settles, and says so."""
    put(tmp_path, name)
    watch = watched(tmp_path, manifest="*.manifest", marker=NAME)
    (one,) = waits_for(watch, name, nothing_known)
    assert (one.name, one.satisfied) == ("sign", False)


def test_no_manifest(tmp_path: Path) -> None:
    """None is there, or none that names the file; one that cannot be used might."""
    put(tmp_path, b"d/a")
    none = "It waits for a manifest that names it: there is none in its directory or above."
    assert manifest(tmp_path, b"d/a") == (False, none)
    put(tmp_path, b"other.manifest", b"other\n", 1_000)
    none = "No manifest in its directory or above names it. There are:"
    assert manifest(tmp_path, b"d/a") == (False, f"{none} 'other.manifest'.")
    put(tmp_path, b"d/x.manifest", b"a\n/b\n")
    fault = "'/b' is absolute; names start at the manifest's directory"
    none = f"{none} 'd/x.manifest', 'other.manifest'."
    words = f"{none} 'd/x.manifest' cannot be used: line 2: {fault}."
    assert manifest(tmp_path, b"d/a") == (False, words)
    assert manifest(tmp_path, b"d/x.manifest") == (False, f"It cannot be used: line 2: {fault}.")


def test_set_that_is_incomplete(tmp_path: Path) -> None:
    """Its members by what they lack; the same is said of the manifest itself."""
    for name in (b"a", b"open", b"newer"):
        put(tmp_path, name)
    (tmp_path / "dir").mkdir()
    names = b"a\ndir\nopen\nnewer\nheld\n" + b"".join(b"m%d\n" % n for n in range(12))
    put(tmp_path, b"x.manifest", names + b"\\n\\nn\n")
    for name in (b"held", b"newer"):
        put(tmp_path, name, b"x", 3_000 if name == b"newer" else 1_000)
    for path in (tmp_path / "a", tmp_path / "open", tmp_path / "x.manifest"):
        os.utime(path, (2_000, 2_000))
    rows = on_record(tmp_path, held="held")
    missing = ", ".join(f"'m{number}'" for number in range(10))
    lists = "lists 18 members, of which"
    words = (
        f"13 are not there: {missing}, ...; 1 is no regular file: 'dir'; 1 is held back: 'held'; "
        "1 has not settled itself: 'open'; 1 was changed after it was written: 'newer'."
    )
    with (tmp_path / "open").open("ab"):
        found = condition_of(tmp_path, b"a", rows)
        assert found[:3] == ("manifest", False, f"Its manifest 'x.manifest' {lists} {words}")
        assert condition_of(tmp_path, b"x.manifest", rows)[2] == f"It {lists} {words}"
    assert found.inventory is not None
    assert found.inventory.manifest == b"x.manifest"
    lacks = list(found.inventory.members.items())
    assert lacks[:3] == [(b"a", None), (b"dir", "irregular"), (b"open", "unsettled")]
    assert lacks[-1] == (b"n\nn", "missing")


def test_manifest_that_is_older(tmp_path: Path) -> None:
    """A file that is newer than its manifest is not what that speaks of."""
    put(tmp_path, b"x.manifest", b"a\n", 1_000)
    put(tmp_path, b"a")
    words = (
        "Its manifest 'x.manifest' is older than the file, and counts only when it is made anew."
    )
    assert manifest(tmp_path, b"a") == (False, words)


def test_manifest_that_is_open(tmp_path: Path) -> None:
    """A manifest that is complete so far, and still open, keeps its set back as a member does."""
    put(tmp_path, b"a")
    with put(tmp_path, b"x.manifest", b"a\n").open("ab"):
        words = "Its manifest 'x.manifest' has not settled itself."
        assert manifest(tmp_path, b"a") == (False, words)


def test_set_that_is_complete(tmp_path: Path) -> None:
    """Of two manifests the one that lacks nothing counts, though the other is younger."""
    put(tmp_path, b"a")
    put(tmp_path, b"1.manifest", b"a\nnever\n", 2**31)
    put(tmp_path, b"2.manifest", b"a\n")
    words = "Its manifest '2.manifest' and all of its members (1) are there"
    assert manifest(tmp_path, b"a") == (True, f"{words}.")


def test_manifest_without_members(tmp_path: Path) -> None:
    """Nothing is missing, and there is nothing to list."""
    put(tmp_path, b"x.manifest", b"# none\n")
    assert manifest(tmp_path, b"x.manifest") == (True, "It lists no members.")


def test_checksums(tmp_path: Path) -> None:
    """Those that do not hold are named; what would take too long to read is not known."""
    for name in (b"a", b"b"):
        put(tmp_path, name)
    sums = [f"{hashlib.md5(c).hexdigest()}  {n}\n" for n, c in (("a", b"x"), ("b", b"other"))]  # noqa: S324
    put(tmp_path, b"x.manifest", "".join(sums).encode())
    words = "lists 2 members, of which 1 has another checksum: 'b'."
    assert manifest(tmp_path, b"a") == (False, f"Its manifest 'x.manifest' {words}")
    put(tmp_path, b"b", b"other", 1_000)
    there = "It and all of its members (2) are there"
    assert manifest(tmp_path, b"x.manifest") == (True, f"{there}, and their checksums hold.")
    os.truncate(tmp_path / "b", READ + 1)
    os.utime(tmp_path / "b", (1_000, 1_000))
    words = f"{there}; whether the checksums of 1 of them hold is not known."
    assert manifest(tmp_path, b"x.manifest") == (None, words)
    assert manifest(tmp_path, b"b")[0] is None


def test_its_own_checksum_comes_first(tmp_path: Path) -> None:
    """Before those of members so large that nothing else is read; a set that is over stays so."""
    put(tmp_path, b"a")
    os.truncate(put(tmp_path, b"large"), READ)
    wrong = hashlib.sha256(b"other").hexdigest()
    put(tmp_path, b"x.manifest", f"{wrong}  large\n{wrong}  a\n".encode())
    found = condition_of(tmp_path, b"a").inventory
    assert found is not None
    assert found.members == {b"large": "unread", b"a": "mismatched"}
    right = hashlib.sha256(b"x").hexdigest()
    put(tmp_path, b"x.manifest", f"{right}  a\n{wrong}  large\n".encode())
    over = condition_of(tmp_path, b"a", on_record(tmp_path, a="done", large="done"))
    assert over.inventory is not None
    assert over.inventory.is_over


def test_a_checksum_that_may_be_of_two_algorithms(tmp_path: Path) -> None:
    """128 digits are compared with both, as the daemon does."""
    put(tmp_path, b"a")
    put(tmp_path, b"x.manifest", hashlib.blake2b(b"x").hexdigest().encode() + b"  a\n")
    assert manifest(tmp_path, b"a")[0] is True


def test_members_that_have_settled(tmp_path: Path) -> None:
    """What has settled before, and is what it was, counts without its marker; then all is over."""
    for name in (b"a", b"b"):
        put(tmp_path, name)
    put(tmp_path, b"x.manifest", b"a\nb\n")
    watch = watched(tmp_path, manifest="*.manifest", marker=NAME)
    (alone,) = speaks_for(watch, b"x.manifest", on_record(tmp_path, a="done"))
    assert alone.sentence == "It lists 2 members, of which 1 has not settled itself: 'b'."
    assert alone.inventory is not None
    assert not alone.inventory.is_over
    rows = on_record(tmp_path, a="done", b="failed")
    (over,) = speaks_for(watch, b"x.manifest", rows)
    assert over.sentence == "It lists 2 members, and all of them have settled."
    assert over.inventory is not None
    assert over.inventory.is_over
    assert speaks_for(watch, b"none.manifest", rows) == []
    assert speaks_for(watch, b"a", rows) == []
