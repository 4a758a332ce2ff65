"""Trees that appear, move and vanish faster than any watcher can tell.

After each burst the disk and the database agree, file by file (`agree`): the watch only tracks, so
every file that is there is `done`, once, and shows what is on the disk.
"""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.acceptance.harness import DEADLINE, RunningDaemon
from tests.acceptance.sites import Site
from tests.acceptance.trees import agree, write

MAKE_TREES = """
import os, sys
root, trees, files = os.fsencode(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
for tree in range(trees):
    folders = [b"%s/t%d%s" % (root, tree, b"/s" * depth) for depth in range(4)]
    os.makedirs(folders[-1])
    for number in range(files):
        with open(b"%s/f%d" % (folders[-1 - number % 4], number), "wb") as file:
            file.write(b"x" * (number + 1))
"""
RECREATE = """
import os, shutil, sys
root = sys.argv[1]
for turn in range(8):
    shutil.rmtree(root, ignore_errors=True)
    for name in ("kept", "deep/er/kept", f"only{turn}", f"sub{turn}/only"):
        os.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
        with open(f"{root}/{name}", "w") as file:
            file.write("x" * (turn + 1))
"""
APPEND = """
import sys
for turn in range(6):
    for number in range(200):
        with open(f"{sys.argv[1]}/f{number}", "a") as file:
            file.write("x" * (number + 1))
"""
SHUFFLE = """
import os, random, sys
names = [f"{sys.argv[1]}/{folder}/n{number}" for folder in "ab" for number in range(40)]
choose = random.Random(3).choice
for turn in range(1500):
    one, other = choose(names), choose(names)
    if not os.path.exists(one):
        with open(one, "w") as file:
            file.write("x" * (turn + 1))
    elif turn % 7:
        os.rename(one, other)
    else:
        os.unlink(one)
"""


@pytest.fixture
def daemon(site: Site) -> RunningDaemon:
    """A daemon whose one watch only tracks."""
    site.configure(site.watch(settle='quiet = "20ms"'))
    return site.start().ready()


@pytest.fixture
def outside(site: Site) -> Path:
    """A tree of 400 files beside the watched one, on the same file system."""
    folder = site.folder / "outside"
    write(MAKE_TREES, folder, 40, 10)
    return folder


@pytest.fixture
def staying(site: Site) -> int:
    """So many files stay in the tree: it is never that most of a watch is removed at once."""
    write(MAKE_TREES, site.tree / "stays", 50, 10)
    return 500


def total_rows(site: Site) -> int:
    """Also those of files that are gone."""
    ((rows,),) = site.sql("SELECT count(*) FROM files")
    return int(rows)


def test_fresh_nested_folders_are_all_found(site: Site, daemon: RunningDaemon) -> None:
    """300 trees of four folders with ten files each: 3,000 rows, each discovered once."""
    write(MAKE_TREES, site.tree, 300, 10)
    assert len(agree(site, daemon)) == total_rows(site) - 1 == 3000
    assert len(daemon.having("discover")) == 3001
    daemon.stop()


def test_an_archive_is_unpacked(site: Site, daemon: RunningDaemon, outside: Path) -> None:
    """`tar -x`, which sets old times on files and folders after it has written them."""
    for path in outside.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    archive = site.folder / "outside.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(outside, "unpacked")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(site.tree)], check=True, timeout=DEADLINE)
    rows = agree(site, daemon)
    daemon.stop()
    assert len(rows) == total_rows(site) - 1 == 400
    assert {row.shown.mtime_ns for row in rows.values()} == {10**18}


def test_a_tree_is_copied(site: Site, daemon: RunningDaemon, outside: Path) -> None:
    """`cp -a`."""
    subprocess.run(["cp", "-a", str(outside), str(site.tree)], check=True, timeout=DEADLINE)
    assert len(agree(site, daemon)) == total_rows(site) - 1 == 400
    daemon.stop()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_repository_is_cloned(site: Site, daemon: RunningDaemon, outside: Path) -> None:
    """`git clone`, with all that git writes under other names first, and its `.git` included."""
    settings = ("-c", "user.name=n", "-c", "user.email=e", "-c", "gc.auto=0")
    for argv in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        _git(outside, *settings, *argv)
    _git(site.tree, "clone", "-q", f"file://{outside}", "clone")
    rows = agree(site, daemon)
    daemon.stop()
    assert b"clone/.git/HEAD" in rows
    assert sum(not path.startswith(b"clone/.git/") for path in rows) == 400


def _git(folder: Path, *arguments: str) -> None:
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    argv = ["git", "-C", str(folder), *arguments]
    subprocess.run(argv, check=True, timeout=DEADLINE, env={**os.environ, **quiet})


def test_a_full_folder_is_moved_in(site: Site, daemon: RunningDaemon, outside: Path) -> None:
    """One rename brings 400 files in 160 folders, of which the kernel tells one name."""
    outside.rename(site.tree / "moved")
    assert len(agree(site, daemon)) == total_rows(site) - 1 == 400
    daemon.stop()


@pytest.mark.parametrize("by", ["a link to it", "a new file", "another file"])
def test_a_full_folder_gives_way(site: Site, daemon: RunningDaemon, by: str) -> None:
    """Moved out, and replaced at once by what is no folder: its files are gone."""
    folder, away = site.tree / "folder", site.folder / "away"
    write(MAKE_TREES, folder, 5, 10)
    (site.tree / "other").write_text("x")
    agree(site, daemon)
    folder.rename(away)
    if by == "a link to it":
        folder.symlink_to(away)
    elif by == "a new file":
        folder.write_text("x")
    else:
        (site.tree / "other").rename(folder)
    assert not [path for path in agree(site, daemon) if path.startswith(b"folder/")]
    daemon.stop()


def test_a_full_folder_is_moved_in_and_on(site: Site, daemon: RunningDaemon, outside: Path) -> None:
    """Into the tree, and renamed there twice before anybody can have looked into it."""
    outside.rename(site.tree / "first")
    (site.tree / "first").rename(site.tree / "second")
    (site.tree / "folder").mkdir()
    (site.tree / "second").rename(site.tree / "folder/third")
    assert len(agree(site, daemon)) == 400
    (site.tree / "folder").rename(site.tree / "last")
    assert len(agree(site, daemon)) == 400
    daemon.stop()


def test_a_folder_is_renamed_while_it_is_filled(site: Site, daemon: RunningDaemon) -> None:
    """Files arrive in a folder that has another name by the time they are looked at."""
    for turn in range(10):
        folder = site.tree / f"working{turn % 2}"
        write(MAKE_TREES, folder, 4, 10)
        folder.rename(site.tree / f"finished{turn}")
    assert len(agree(site, daemon)) == 400
    daemon.stop()


def test_a_full_folder_is_moved_out(
    site: Site, daemon: RunningDaemon, outside: Path, staying: int
) -> None:
    """What was in it is gone, folder by folder, though the kernel tells one name."""
    outside.rename(site.tree / "moved")
    assert len(agree(site, daemon)) == 400 + staying
    (site.tree / "moved").rename(outside)
    assert len(agree(site, daemon)) == staying
    daemon.stop()
    assert len(daemon.having("vanish")) == 400 + 1  # and once the file that `agree` lets pass


def test_a_full_folder_is_replaced_by_another(
    site: Site, daemon: RunningDaemon, outside: Path, staying: int
) -> None:
    """Moved out, and another moved in under its name at once: the new one's files, and no other."""
    outside.rename(site.tree / "folder")
    write(MAKE_TREES, outside, 30, 7)
    assert len(agree(site, daemon)) == 400 + staying
    (site.tree / "folder").rename(site.folder / "away")
    outside.rename(site.tree / "folder")
    assert len(agree(site, daemon)) == 210 + staying
    daemon.stop()


def test_a_folder_is_removed_and_made_anew_within_milliseconds(
    site: Site, daemon: RunningDaemon
) -> None:
    """Eight times at full speed, twice over, with other content each time: the last one counts."""
    for _ in range(2):
        write(RECREATE, site.tree / "folder")
        names = {b"folder/kept", b"folder/deep/er/kept", b"folder/only7", b"folder/sub7/only"}
        assert agree(site, daemon).keys() == names
    daemon.stop()


def test_files_are_written_again_and_again(site: Site, daemon: RunningDaemon) -> None:
    """200 files, each opened, written and closed six times: the last size of each is known."""
    write(APPEND, site.tree)
    rows = agree(site, daemon)
    write(APPEND, site.tree)
    again = agree(site, daemon)
    daemon.stop()
    assert {path: row.id for path, row in rows.items()} == {
        path: row.id for path, row in again.items()
    }
    assert sum(row.shown.size for row in again.values()) == 2 * 6 * sum(range(1, 201))


def test_names_that_are_shuffled_at_full_speed_end_up_right(
    site: Site, daemon: RunningDaemon
) -> None:
    """1,500 random creations, removals, and renames over each other, and then the same again."""
    for folder in ("a", "b"):
        (site.tree / folder).mkdir()
    for _ in range(2):
        write(SHUFFLE, site.tree)
        assert agree(site, daemon)
    daemon.stop()
