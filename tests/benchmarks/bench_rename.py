"""A directory with 10,000 tracked files is renamed inside the tree: no handler runs again.

    python tests/benchmarks/bench_rename.py [files=10000] [rounds=4]

The watch has a step, which runs `true` once on each file first. Each round renames the directory,
and takes the time from rename(2) until the `move` of every file is committed; then waits until
nothing is committed any more, and counts what was, by trigger: a file that was taken for a new one
shows as `vanish`, `discover` and `start`. Beside it, watchman on a directory of the same kind:
until it has reported all the new names.
"""

import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median

from tests.benchmarks.figures import Beside, Figure, print_table, spread
from tests.benchmarks.peers import Start, installed
from tests.benchmarks.running import Daemon, configure, running
from tests.benchmarks.trees import fill

WATCH = f"""
[watch.settle]
quiet = "0s"
[[watch.step]]
name = "nothing"
command = ["true"]
concurrency = {os.cpu_count() or 1}
"""
SINCE = "SELECT count(*) FROM transitions WHERE seq > ? AND trigger = ?"
TRIGGERS = ("move", "vanish", "discover", "change", "settle", "start")
MOST_SECONDS = 2
PATIENCE_SECONDS = 30.0


def rename(tree: Path, number: int) -> float:
    """To the next name; when."""
    began = time.monotonic()
    (tree / f"set{number}").rename(tree / f"set{number + 1}")
    return began


def daemon_rounds(folder: Path, files: int, rounds: int) -> tuple[list[float], Counter[str]]:
    """Seconds of each round, infinite where files did not move, and what was committed in all."""
    tree = new_tree(folder / "treewarden", files)
    configure(folder, tree, WATCH)
    times: list[float] = []
    triggers: Counter[str] = Counter()
    with running(folder) as daemon:
        daemon.ready()
        took = daemon.wait(lambda: daemon.database.in_state("done") >= files)
        print(f"{files:,} files handled for the first time in {took:.1f} s")
        daemon.quiet()
        for number in range(rounds):
            last = daemon.database.last_transition()
            began = rename(tree, number)
            times.append(moved(daemon, last, files) - began)
            daemon.quiet()
            triggers.update({each: daemon.database.number(SINCE, last, each) for each in TRIGGERS})
    return times, triggers


def moved(daemon: Daemon, last: int, files: int) -> float:
    """When the last of so many moves was committed; never, after a while."""
    until = time.monotonic() + PATIENCE_SECONDS
    while daemon.database.number(SINCE, last, "move") < files:
        if time.monotonic() > until:
            return float("inf")
        time.sleep(0.01)
    return time.monotonic()


def peer_rounds(start: Start, tree: Path, files: int, rounds: int) -> list[float]:
    times = []
    with start(new_tree(tree, files)) as reporter:
        for number in range(rounds):
            began = rename(tree, number)
            times.append(reporter.reported(files, f"set{number + 1}/") - began)
    return times


def new_tree(tree: Path, files: int) -> Path:
    (tree / "set0").mkdir(parents=True)
    fill(tree / "set0", files)
    return tree


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    beside = None
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        times, triggers = daemon_rounds(folder, files, rounds)
        print(f"treewarden: {spread('s', times)}")
        for peer, start in installed("watchman").items():
            runs = peer_rounds(start, folder / peer, files, rounds)
            print(f"{peer}: {spread('s', runs)}")
            beside = Beside(peer, median(runs))
    print(f"committed in {rounds} rounds: " + ", ".join(f"{n:,} {t}" for t, n in triggers.items()))
    what = f"{files:,} files in a renamed directory"
    print_table(
        [
            Figure(f"{what}: all moves committed", median(times), "s", beside, most=MOST_SECONDS),
            Figure(f"{what}: handlers started", triggers["start"], "starts", most=0),
        ]
    )


if __name__ == "__main__":
    main()
