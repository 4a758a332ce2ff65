"""A file that is taken away when the daemon dies, at whichever moment: no double, and no loss."""

import os
import random
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from watchfiles import Change, watch

from tests.acceptance.harness import PROJECT
from tests.acceptance.sites import Site

ROUNDS = 6
PACE = 0.004
SEED = int(os.environ.get("TREEWARDEN_CRASH_SEED", "0")) or random.SystemRandom().getrandbits(32)
PROGRAM = Path(__file__).with_name("killed_at_each_line.py")


@contextmanager
def archive(tmp_path: Path, *, away: bool) -> Iterator[Path]:
    """A folder on the file system of the tree, or on another one."""
    if not away:
        (tmp_path / "archive").mkdir()
        yield tmp_path / "archive"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert Path(folder).stat().st_dev != tmp_path.stat().st_dev
        yield Path(folder)


@pytest.mark.parametrize(
    ("way", "away"),
    [
        ("move", False),
        ("move", True),
        ("delete", False),
        ("gone", True),
        ("replaced", True),
        ("newer", False),
        ("newer", True),
    ],
)
def test_killed_at_each_line(tmp_path: Path, way: str, *, away: bool) -> None:
    """Killed before any line: the next start ends it, with one file at its place, and whole.

    Where the file is not there to be taken any more, nothing is left of a copy that was cut off. A
    newer file that came to its path is not touched.
    """
    (tmp_path / "tree").mkdir()
    with archive(tmp_path, away=away) as place:
        run = subprocess.run(
            [sys.executable, str(PROGRAM), str(tmp_path / "tree"), str(place), way],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            timeout=100,
        )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 10


def await_part(folder: Path) -> None:
    """Return as soon as a copy has been begun there."""
    for changes in watch(folder, debounce=1, step=1, rust_timeout=30_000, yield_on_timeout=True):
        assert changes, "no copy was begun"
        if any(change == Change.added and path.endswith(".part") for change, path in changes):
            return


@pytest.mark.parametrize("way", ["gone", "replaced", "not configured"])
def test_file_is_not_taken_after_all(site: Site, way: str) -> None:
    """Killed in the midst of a copy, and there is no other try: nothing of it stays."""
    with archive(site.folder, away=True) as place, (site.tree / "large").open("wb") as file:
        on_done = f'on_done = {{ move = "{place}/{{watch}}/{{name}}" }}\n[watch.settle]'
        plain = site.watch(exclude=["new"])
        site.configure(plain.replace("[watch.settle]", on_done))
        (place / "w").mkdir()
        # A hole costs nothing to make, and takes a second to copy.
        file.truncate(2 << 30)
        file.close()
        daemon = site.start()
        await_part(place)
        daemon.kill()
        (part,) = files(place)
        assert part.suffix == ".part"
        if way == "not configured":
            site.configure(plain)
        elif way == "gone":
            (site.tree / "large").unlink()
        else:  # by another that is held up for long
            (site.tree / "large").write_text("another")
            site.configure(plain.replace("[watch.settle]", on_done).replace("50ms", "1h"))
        second = site.start().ready()
        assert files(place) == []
        assert list((site.state / "parts").iterdir()) == []
        second.stop()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def make_files(tree: Path, stop: threading.Event, made: list[str]) -> None:
    """New files, each with a content of its own, some of them under a name that was used before."""
    while not stop.wait(PACE):
        number = len(made)
        made.append(f"content {number}\n")
        path = tree / f"d{number % 3}" / f"f{number % 40}.csv"
        part = tree / f".{number}.part"
        part.write_text(made[-1])
        path.parent.mkdir(exist_ok=True)
        part.rename(path)


@pytest.mark.parametrize("away", [False, True])
def test_sigkill_at_any_moment(site: Site, *, away: bool) -> None:
    """Killed over and over: each file that was handled is in the archive, once, and none is left.

    What was replaced in the tree before it was handled is the sender's loss, and the only one.
    """
    print(f"TREEWARDEN_CRASH_SEED={SEED}")  # noqa: T201 - shown with a failure, to repeat it
    chance = random.Random(SEED)  # noqa: S311 - as above
    handled = site.folder / "handled"
    handled.touch()
    site.environment["HANDLED"] = str(handled)
    script = site.script("handle", 'cat "$TREEWARDEN_PATH" >>"$HANDLED"')
    step = f'name = "s"\ncommand = [{script}]\nconcurrency = 4\nattempts = 1000000'
    with archive(site.folder, away=away) as place:
        on_done = f'on_done = {{ move = "{place}/{{date}}/{{relpath}}" }}'
        watch = site.watch(
            step, settle='quiet = "20ms"', interruptions=1000, max_cycles=10_000, exclude=[".*"]
        )
        site.configure(watch.replace("[watch.settle]", f"{on_done}\n[watch.settle]"))
        made: list[str] = []
        for _ in range(ROUNDS):
            daemon = site.start()
            stop = threading.Event()
            arriving = threading.Thread(target=make_files, args=(site.tree, stop, made))
            arriving.start()
            daemon.line("daemon.started")
            with daemon._news:
                lines = chance.randrange(1, 300)
                daemon._news.wait_for(
                    lambda: len(daemon.lines) >= lines,  # noqa: B023
                    chance.uniform(0.2, 1.5),
                )
            daemon.kill()
            stop.set()
            arriving.join()
        daemon = site.start().ready()
        query = "SELECT count(*) FROM files WHERE state != 'gone'"
        daemon.wait_for(
            lambda _: not files(site.tree) and site.sql(query) == [(0,)], "end of all files", 60.0
        )
        daemon.stop()
        there = Counter(path.read_text() for path in files(place))
    assert [text for text, count in there.items() if count > 1] == []
    assert set(there) <= set(made)
    assert made[-1] in there
    assert set(there) <= set(handled.read_text().splitlines(keepends=True))
    targets = {
        target for (target,) in site.sql("SELECT target FROM transitions WHERE target != ''")
    }
    assert len(targets) == len(there)
