"""Producers that say themselves when something is complete: marker files and manifests."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from tests.acceptance.sites import Site
from tests.acceptance.trees import Scene, live_rows

MARKED = 'quiet = "20ms"\nmarker = "{name}.done"'
STEM = 'quiet = "20ms"\nmarker = ".{stem}.ok"'
MANIFEST = 'quiet = "20ms"\nmanifest = "*.manifest"'
MOMENTS = pytest.mark.parametrize("moment", ["running", "down"])


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_settles_with_its_marker(site: Site) -> None:
    """Not before, however long it is quiet; then it is handled, and the marker is gone."""
    scene = Scene(site, settle=MARKED)
    others = ["1", "2", "3"]
    (scene.tree / "a").write_text("x")
    for name in others:
        (scene.tree / name).touch()
        (scene.tree / f"{name}.done").touch()
        scene.daemon.done(name)
    assert scene.daemon.state("a") == "settling"
    (scene.tree / "a.done").touch()
    scene.daemon.done("a")
    (settle,) = scene.daemon.having("settle", path="a")
    assert settle["evidence"] in {"quiet+lease+marker", "quiet+marker"}
    scene.await_rows(dict.fromkeys(["a", *others]))
    assert scene.handled() == [*others, "a"]
    assert names_in(scene.tree) == [*others, "a"]


def test_a_marker_that_comes_too_early(site: Site) -> None:
    """Its file is still open: it is handled when it is closed, and whole."""
    scene = Scene(site, settle=MARKED, then='wc -c <"$TREEWARDEN_PATH" >"$EFFECTS"')
    with (scene.tree / "a").open("w") as file:
        file.write("half")
        file.flush()
        scene.daemon.line("discover", path="a")
        (scene.tree / "a.done").touch()
        (scene.tree / "clock").touch()
        (scene.tree / "clock.done").touch()
        scene.daemon.done("clock")
        assert scene.daemon.state("a") == "settling"
        file.write(" whole")
    # It is newer than its marker now, which speaks of another content.
    (scene.tree / "a.done").touch()
    scene.await_rows({"a": None, "clock": None})
    assert scene.handled() == ["0", "10", "a", "clock"]


@MOMENTS
def test_a_marker_that_a_crash_left(site: Site, moment: str) -> None:
    """Found beside a file that has settled, it is removed, and nothing is handled again."""
    scene = Scene(site, settle=MARKED)
    for name in ("a", "a.done"):
        (scene.tree / name).touch()
    scene.daemon.done("a")
    with scene.meanwhile(moment):
        (scene.tree / "a.done").touch()
    (scene.tree / "b").touch()
    (scene.tree / "b.done").touch()
    scene.await_rows({"a": None, "b": None})
    assert scene.handled() == ["a", "b"]
    assert names_in(scene.tree) == ["a", "b"]


def test_every_delivery_needs_its_marker(site: Site) -> None:
    """The same name five times over, written in place: each time handled once, with its marker."""
    scene = Scene(site, settle=MARKED, then='cat "$TREEWARDEN_PATH" >"$EFFECTS"')
    for number in range(5):
        (scene.tree / "a").write_text(f"{number}\n")
        (scene.tree / "a.done").touch()
        assert [scene.effects.next(), scene.effects.next()] == [b"a", b"%d" % number]
        scene.daemon.nth(number + 1, "succeed", path="a")
    scene.await_rows({"a": None})
    assert scene.handled() == []
    assert names_in(scene.tree) == ["a"]


def test_one_marker_for_all_files_of_a_stem(site: Site) -> None:
    """It is removed when the last of them has settled; names may be any."""
    scene = Scene(site, settle=STEM)
    names = [b"a.csv", b"a.xml", b"\xff\n.csv"]
    for name in names:
        Path(os.fsdecode(bytes(scene.tree) + b"/" + name)).write_text("x")
    with (scene.tree / "a.xml").open("a"):
        for stem in (b"a", b"\xff\n"):
            Path(os.fsdecode(bytes(scene.tree) + b"/." + stem + b".ok")).touch()
        scene.daemon.done("a.csv")
        assert scene.daemon.state("a.xml") == "settling"
        assert ".a.ok" in names_in(scene.tree)
    scene.await_rows(dict.fromkeys(map(os.fsdecode, names)))
    scene.handled()
    assert sorted(os.fsencode(path.name) for path in scene.tree.iterdir()) == sorted(names)


@pytest.mark.parametrize("settle", [MARKED, MANIFEST])
def test_where_nothing_is_watched(site: Site, settle: str) -> None:
    """In a polled tree scans tell of markers and manifests."""
    scene = Scene(site, settle=settle, mode="poll", poll="200ms")
    (scene.tree / "a").write_text("x")
    scene.daemon.line("discover", path="a")
    for name in ("a.done", "all.manifest"):
        (scene.tree / name).write_text("a\n")
    scene.daemon.done("a")
    assert scene.handled() == ["a"]


def deliver(folder: Path, *names: str) -> list[Path]:
    """Files and the manifest that lists them with their checksums, as `sha256sum` prints it."""
    lines = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        lines.append(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n")
    (folder / "all.manifest").write_text("".join(lines))
    return [folder / name for name in [*names, "all.manifest"]]


def test_a_set_settles_as_a_whole(site: Site) -> None:
    """With its manifest, which stays where it is; what none lists keeps waiting."""
    scene = Scene(site, settle=MANIFEST)
    (scene.tree / "alone").write_text("x")
    deliver(scene.tree / "one", "a", "b", "sub/c")
    members = ["one/a", "one/b", "one/sub/c"]
    scene.daemon.done(*members)
    settles = scene.daemon.having("settle")
    assert {line["path"] for line in settles} == set(members)
    assert {line["cause"] for line in settles} == {"manifest"}
    assert scene.daemon.state("alone") == "settling"
    assert scene.handled() == members
    assert (scene.tree / "one/all.manifest").exists()


def test_a_set_that_lacks_one(site: Site) -> None:
    """Nothing of it settles until that one is there: with its old time, as rsync keeps it."""
    scene = Scene(site, settle=MANIFEST)
    *files, last, manifest = deliver(site.folder / "aside", "a", "b", "c")
    (scene.tree / "d").mkdir()
    for path in (*files, manifest):
        shutil.copy2(path, scene.tree / "d")
    deliver(scene.tree / "clock", "1")
    scene.daemon.done("clock/1")
    assert scene.daemon.state("d/a") == scene.daemon.state("d/b") == "settling"
    shutil.copy2(last, scene.tree / "d")
    scene.daemon.done("d/a", "d/b", "d/c")
    assert scene.handled() == ["clock/1", "d/a", "d/b", "d/c"]


@MOMENTS
def test_a_whole_delivery_is_moved_in(site: Site, moment: str) -> None:
    """A folder with files and manifest, renamed into the tree: each file is handled once."""
    scene = Scene(site, settle=MANIFEST)
    names = [f"{number % 5}/{number}" for number in range(100)]
    deliver(site.folder / "aside", *names)
    with scene.meanwhile(moment):
        (site.folder / "aside").rename(scene.tree / "d")
    scene.await_rows(dict.fromkeys(f"d/{name}" for name in names))
    assert scene.handled() == sorted(f"d/{name}" for name in names)


def test_a_checksum_that_does_not_hold(site: Site) -> None:
    """It is said with its line; with the right bytes, dated back, the set settles."""
    scene = Scene(site, settle=MANIFEST)
    folder = scene.tree / "d"
    folder.mkdir()
    (folder / "b").write_text("x")
    right = hashlib.sha256(b"b").hexdigest()
    (folder / "all.manifest").write_text(f"# of today\n{right}  b\n")
    said = scene.daemon.line("daemon.degraded", path="d/all.manifest")
    assert said["error"] == "line 2: 'd/b' has another checksum"
    (site.folder / "b").write_text("b")
    os.utime(site.folder / "b", (1_000, 1_000))
    (site.folder / "b").rename(folder / "b")
    scene.daemon.done("d/b")
    assert scene.handled() == ["d/b"]
    assert len(scene.daemon.having("daemon.degraded")) == 1


def test_killed_while_sets_settle(site: Site) -> None:
    """All members of a set have settled or none has, and in the end all are handled."""
    scene = Scene(site, settle=MANIFEST)
    names = [str(number) for number in range(50)]
    for number in range(6):
        deliver(scene.tree / f"{number}", *names)
        scene.daemon.line("discover", path=f"{number}/{names[10 * (number % 5)]}")
        if number % 2:
            scene.daemon.line("settle", path=f"{number}/0")
        scene.daemon.kill()
        rows = live_rows(site)
        for folder in range(number + 1):
            states = {r.state for p, r in rows.items() if p.startswith(b"%d/" % folder)}
            assert states <= {"settling"} or "settling" not in states
        scene.daemon = site.start().ready()
    scene.await_rows({f"{number}/{name}": None for number in range(6) for name in names})
    assert set(scene.handled()) == {f"{number}/{name}" for number in range(6) for name in names}
