"""From the last write of a burst until every file is on record in its true state: one line a kind.

    python -m tests.benchmarks.bench_bursts [repeats]

The kinds are those that no watcher can follow: fresh nested folders at full speed, `tar -x`,
`cp -a`, full folders that are moved in, on, out and replaced, folders removed and made anew within
milliseconds, names that are shuffled. The watch only tracks (`quiet = "20ms"`), and a figure ends
when ledger and disk agree, file by file; it stands beside the time that the writer took.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.acceptance.sites import Site
from tests.acceptance.test_bursts import MAKE_TREES, RECREATE, SHUFFLE
from tests.acceptance.trees import await_agreement, write
from tests.benchmarks.figures import Beside, Figure, print_table

SECONDS = 2.0
Burst = Callable[[Path, Path], None]


def _nested(tree: Path, _: Path) -> None:
    write(MAKE_TREES, tree, 300, 10)


def _unpacked(tree: Path, outside: Path) -> None:
    archive = shutil.make_archive(str(outside), "tar", outside)
    subprocess.run(["tar", "-xf", archive, "-C", str(tree)], check=True)


def _copied(tree: Path, outside: Path) -> None:
    subprocess.run(["cp", "-a", str(outside), str(tree)], check=True)


def _moved_in_and_on(tree: Path, outside: Path) -> None:
    outside.rename(tree / "first")
    (tree / "first").rename(tree / "second")
    (tree / "folder").mkdir()
    (tree / "second").rename(tree / "folder/third")


def _moved_out(tree: Path, outside: Path) -> None:
    (tree / "stays/t0").rename(outside / "away")


def _replaced(tree: Path, outside: Path) -> None:
    (tree / "stays/t0").rename(outside.parent / "away")
    outside.rename(tree / "stays/t0")


def _recreated(tree: Path, _: Path) -> None:
    write(RECREATE, tree / "folder")


def _shuffled(tree: Path, _: Path) -> None:
    (tree / "a").mkdir()
    (tree / "b").mkdir()
    write(SHUFFLE, tree)


BURSTS: dict[str, Burst] = {
    "300 nested trees, 3,000 files": _nested,
    "tar -x, 400 files": _unpacked,
    "cp -a, 400 files": _copied,
    "a folder of 400 moved in and on": _moved_in_and_on,
    "a folder moved out": _moved_out,
    "a folder replaced by one of 400": _replaced,
    "removed and made anew, 8 times": _recreated,
    "80 names shuffled 1,500 times": _shuffled,
}


def measure(burst: Burst) -> tuple[float, float]:
    """Seconds from the last write to agreement, and those of the writer."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        site, outside = Site(Path(place)), Path(place) / "outside"
        write(MAKE_TREES, outside, 40, 10)
        write(MAKE_TREES, site.tree / "stays", 50, 10)
        site.configure(site.watch(settle='quiet = "20ms"'))
        try:
            daemon = site.start().ready()
            await_agreement(site, daemon)
            began = time.perf_counter()
            burst(site.tree, outside)
            written = time.perf_counter()
            await_agreement(site, daemon)
            agreed = time.perf_counter()
            daemon.stop()
        finally:
            site.close()
    return agreed - written, written - began


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    figures = []
    for what, burst in BURSTS.items():
        runs = [measure(burst) for _ in range(repeats)]
        took, writer = map(statistics.median, zip(*runs, strict=True))
        figures.append(Figure(what, took, "s", Beside("the writer", writer), most=SECONDS))
        print(f"{what}: {', '.join(f'{seconds:.2f}' for seconds, _ in runs)} s", flush=True)
    print_table(figures)


if __name__ == "__main__":
    main()
