"""Resident memory while a large tree changes all the time: does it stay flat?

    python tests/benchmarks/bench_soak.py [minutes=2] [--tree DIR] [--files 100000]
    python tests/benchmarks/bench_soak.py 60 --tree DIR --files 1000000

The goal is stated for the second: an hour, on a million files. Without arguments it is a short one,
which shows that it works. `--tree` takes a tree that is there, or makes one with `--files` files in
a hundredth as many directories that stays; what this makes in it is removed again.

100 changes a second: a third each create a file with 1 KB somewhere in the tree, append 1 KB to one
of these, and delete one. The daemon adopts what was there, tracks only, and has its defaults. The
resident memory of it and of its child processes is read every 30 s (more often in a short run);
"flat" compares the median of the first third of the readings with that of the last. Whether every
file is on record in the end is printed too.
"""

import argparse
import random
import tempfile
import time
from itertools import cycle
from pathlib import Path
from statistics import median

from tests.benchmarks.costs import cost_of
from tests.benchmarks.figures import Beside, Figure, print_table
from tests.benchmarks.running import Daemon, configure, running
from tests.benchmarks.trees import kept_or_made, size_of

FILES_A_DIRECTORY = 100
CHANGES_A_SECOND = 100
LIVE = 1_000
CONTENT = b"x" * 1024
READ_SECONDS = 30.0
READINGS = 12
MOST_MB = 120
# A reading wavers by so much by itself: what the allocator holds, what SQLite's cache does.
MOST_GROWTH = 1.05


class Changes:
    """A thousand files of our own, in a tree that is somebody else's."""

    def __init__(self, tree: Path) -> None:
        self._random = random.Random(3)  # noqa: S311 - the same changes in each run
        self._folders = [path for path in tree.glob("*/*") if path.is_dir()]
        self._number = 0
        self.live: list[Path] = []
        self._next = cycle((self.create, self.append, self.delete))
        for _ in range(LIVE):
            self.create()

    def make(self) -> None:
        """Make the next change."""
        next(self._next)()

    def create(self) -> None:
        self._number += 1
        path = self._random.choice(self._folders) / f"soak-{self._number}"
        path.write_bytes(CONTENT)
        self.live.append(path)

    def append(self) -> None:
        with self._random.choice(self.live).open("ab") as file:
            file.write(CONTENT)

    def delete(self) -> None:
        chosen = self._random.randrange(len(self.live))
        self.live[chosen], self.live[-1] = self.live[-1], self.live[chosen]
        self.live.pop().unlink()

    def undo(self) -> None:
        for path in self.live:
            path.unlink(missing_ok=True)


def soak(daemon: Daemon, changes: Changes, seconds: float) -> list[float]:
    """Change the tree for so long; the memory meanwhile."""
    began, made = time.monotonic(), 0
    every = min(READ_SECONDS, seconds / READINGS)
    readings: list[float] = []
    while (passed := time.monotonic() - began) < seconds:
        while made < passed * CHANGES_A_SECOND:
            changes.make()
            made += 1
        if passed >= (len(readings) + 1) * every:
            readings.append(cost_of(daemon.pid).rss_mb)
            print(f"{passed:6.0f} s  {made:8,} changes  {readings[-1]:.1f} MB", flush=True)
        time.sleep(1 / CHANGES_A_SECOND)
    return readings


def settled(daemon: Daemon, files: int) -> str:
    """Wait a while until every file there is, and no other, is tracked."""
    limit = time.monotonic() + 60.0
    while daemon.database.in_state("done") != files and time.monotonic() < limit:
        time.sleep(0.1)
    return f"in the end {files:,} files are there, {daemon.database.in_state('done'):,} are done"


def run(folder: Path, tree: Path, seconds: float) -> list[float]:
    files = size_of(tree).files
    configure(folder, tree, 'existing = "adopt"\n')
    with running(folder) as daemon:
        daemon.ready()
        took = daemon.wait(lambda: daemon.database.in_state("done") >= files)
        print(f"{files:,} files tracked after {took:.1f} s")
        changes = Changes(tree)
        try:
            readings = soak(daemon, changes, seconds)
            print(settled(daemon, files + len(changes.live)))
        finally:
            changes.undo()
    return readings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("minutes", type=float, nargs="?", default=2.0)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        directories = max(options.files // FILES_A_DIRECTORY, 1)
        tree = kept_or_made(options.tree, folder, options.files, directories)
        readings = run(folder, tree, 60 * options.minutes)
    third = max(len(readings) // 3, 1)
    first, last = median(readings[:third]), median(readings[-third:])
    beside = Beside("first third", first)
    print_table(
        [
            Figure("resident memory, most", max(readings), "MB", most=MOST_MB),
            Figure("resident memory, last third", last, "MB", beside, times=MOST_GROWTH),
        ]
    )


if __name__ == "__main__":
    main()
