"""With identity = "content" the real daemon handles bytes once, whatever is done to their files.

Each thing is done twice: while the daemon runs, so that hints tell of it, and while it is down, so
that the scan does.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.sites import Site
from tests.acceptance.trees import Scene

MOMENTS = pytest.mark.parametrize("moment", ["running", "down"])


def touched(path: Path) -> None:
    path.touch()


def copied_onto(path: Path) -> None:
    copy = shutil.copyfile(path, path.parent.parent / "copy")
    shutil.copyfile(copy, path)


def replaced_by_a_copy(path: Path) -> None:
    copy = Path(shutil.copyfile(path, path.parent.parent / "copy"))
    copy.rename(path)


def restored(path: Path) -> None:
    copy = Path(shutil.copyfile(path, path.parent.parent / "copy"))
    path.unlink()
    shutil.copyfile(copy, path)
    os.utime(path, (1_000, 1_000))


@pytest.mark.parametrize("way", [touched, copied_onto, replaced_by_a_copy, restored])
@MOMENTS
def test_the_same_bytes_are_not_handled_again(
    site: Site, moment: str, way: Callable[[Path], None]
) -> None:
    """Whatever inode and mtime they have now: done again, with no handler run."""
    scene = Scene(site, identity="content")
    (number,) = scene.put("a")
    with scene.meanwhile(moment):
        way(scene.tree / "a")
    scene.await_rows({"a": number})
    assert scene.handled() == []
    settled = [line for line in scene.daemon.of("a") if line["to_state"] == "done"]
    assert settled[-1]["guard"] == "as_done"


@MOMENTS
def test_a_mode_is_no_content(site: Site, moment: str) -> None:
    """A chmod and a hard link change the ctime: not a transition comes of it."""
    scene = Scene(site, identity="content")
    (number,) = scene.put("a")
    before = scene.events("a")
    with scene.meanwhile(moment):
        (scene.tree / "a").chmod(0o600)
        (scene.tree.parent / "link").hardlink_to(scene.tree / "a")
    scene.put("clock")
    scene.await_rows({"a": number, "clock": None})
    assert scene.events("a") == before
    assert scene.handled() == []


@MOMENTS
def test_other_bytes_of_the_same_size_and_time(site: Site, moment: str) -> None:
    """Written in place, and the mtime put back: it is noticed by the ctime, and handled."""
    scene = Scene(site, identity="content")
    (number,) = scene.put("a")
    before = (scene.tree / "a").stat()
    with scene.meanwhile(moment):
        (scene.tree / "a").write_text("y")
        os.utime(scene.tree / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert scene.effects.next() == b"a"
    scene.await_rows({"a": number})
    assert scene.handled() == []


def test_the_key_of_a_content(site: Site) -> None:
    """What a handler is given to know repetitions by is the same for the same bytes, and only so.

    Also after a restart, under another inode.
    """
    effects = site.effects()
    script = site.script("report", 'echo "$TREEWARDEN_KEY" >"$EFFECTS"')
    step = f'name = "s"\ncommand = [{script}]'
    site.configure(site.watch(step, settle='quiet = "20ms"', identity="content"))
    daemon = site.start().ready()
    keys = []
    for text in ("one", "two", "one"):
        (site.tree / "new").write_text(text)
        (site.tree / "new").rename(site.tree / "a")
        keys.append(effects.next())
        daemon.done("a")
    daemon.stop()
    assert keys[0] == keys[2] != keys[1]


def test_adopted_files_are_known_by_their_bytes(site: Site) -> None:
    """What was there before the first start is not handled for a touch, but for other bytes."""
    for number in range(100):
        (site.tree / f"{number}").write_text(f"{number}")
    scene = Scene(site, identity="content", existing="adopt")
    ids = {path.decode(): row.id for path, row in scene.await_rows(_numbers()).items()}
    for number in range(100):
        (scene.tree / f"{number}").touch()
    (scene.tree / "7").write_text("77")
    assert scene.effects.next() == b"7"
    scene.await_rows(ids)
    assert scene.handled() == []


def _numbers() -> dict[str, int | None]:
    return dict.fromkeys(map(str, range(100)))


def test_a_file_that_takes_an_hour_to_read(site: Site) -> None:
    """It is settling meanwhile and holds nothing up; a stop ends the reading, so does a kill."""
    scene = Scene(site, identity="content")
    with (scene.tree / "large").open("wb") as file:
        file.truncate(2**40)
    scene.daemon.line("discover", path="large")
    scene.put("small")
    assert scene.daemon.state("large") == "settling"
    scene.daemon.stop()
    scene.daemon = site.start().ready()
    scene.put("another")
    scene.daemon.kill()
    os.truncate(scene.tree / "large", 1)
    scene.daemon = site.start()
    scene.await_rows(dict.fromkeys(("large", "small", "another")))
    assert scene.handled() == ["large"]
