r"""The first start on a large tree, and the next one when nothing has changed, beside `find` on it.

    python tests/benchmarks/bench_scan.py [files=1000000] [directories=10000] [--tree DIR]

`--tree` takes a tree that is there, whatever its size, or makes one that stays for the next run.
The tree is warm. In the same run, one after the other:

* find: `find . -printf '%p %s %T@\n'` with its output thrown away, median of three, before each
  start.
* first start: `existing = "adopt"`, no steps; from exec until every file is `done` in the database,
  and until the log has all the lines.
* next start: from exec to the line `daemon.ready`; what it wrote into the database and into the
  log.
* stalls: one more such start with a clock in the daemon's own loop (stalls.py), beside an empty
  loop at the same time, which shows what the machine does to any process.
* memory: resident, of the daemon and its child processes together, idle after both starts.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.costs import cost_of
from tests.benchmarks.figures import Beside, Figure, print_table, spread
from tests.benchmarks.running import PROJECT, Daemon, configure, running, stop
from tests.benchmarks.stalls import Stall, read_stalls
from tests.benchmarks.trees import Size, kept_or_made, size_of

FIND = ("find", ".", "-printf", "%p %s %T@\\n")
STALLS = ("-m", "tests.benchmarks.stalls")
IDLE_SECONDS = 10.0
AFTER_READY_SECONDS = 2.0
MOST_MB = 120
MOST_MS = 50


def find(tree: Path) -> Beside:
    times = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run(FIND, cwd=tree, stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - began)
    print(f"find: {spread('s', times)}")
    return Beside("find", median(times))


def first_start(folder: Path, tree: Path, size: Size) -> tuple[int, list[Figure]]:
    """Adopt everything; also gives the number of the last transition."""
    beside = find(tree)
    with running(folder) as daemon:
        database = daemon.database
        committed = daemon.wait(lambda: database.in_state("done") >= size.files, every=0.05)
        last = database.last_transition()
        logged = daemon.wait(lambda: database.journaled() >= last)
        ready = daemon.ready()
        cpu = cost_of(daemon.pid).cpu_seconds
        print(f"first start: ready after {ready:.1f} s; {cpu:.1f} s of CPU so far")
        print(f"  {last:,} transitions, {daemon.log.committed:,} lines of them")
        memory = idle_memory("idle after the first start", daemon)
    return last, [
        Figure("first start: all done, committed", committed, "s", beside, times=12),
        Figure("first start: all lines written", logged, "s", beside),
        memory,
    ]


def next_start(folder: Path, tree: Path, last: int) -> list[Figure]:
    beside = find(tree)
    with running(folder) as daemon:
        ready = daemon.ready()
        cpu = cost_of(daemon.pid).cpu_seconds
        print(f"next start: {cpu:.1f} s of CPU so far")
        memory = idle_memory("idle after the next start", daemon)
        written = daemon.database.last_transition() - last
        lines = daemon.log.read().about_files
    return [
        Figure("next start: ready", ready, "s", beside, times=3),
        Figure("next start: transitions written", written, "rows", most=0),
        Figure("next start: lines but the daemon's own", lines, "lines", most=0),
        memory,
    ]


def idle_memory(what: str, daemon: Daemon) -> Figure:
    time.sleep(IDLE_SECONDS)
    cost = cost_of(daemon.pid)
    return Figure(f"{what}, processes: {cost.processes}", cost.rss_mb, "MB", most=MOST_MB)


def stalls(folder: Path) -> list[Figure]:
    """The longest that the loop did not turn, from its start until well after ready."""
    ours, empty = folder / "stalls", folder / "stalls-empty"
    with running(folder, (*STALLS, str(ours))) as daemon, empty_loop(empty):
        daemon.ready()
        time.sleep(AFTER_READY_SECONDS)
        until = time.time()
    longest = longest_first(ours, until)
    for stall in longest[:3]:
        print(
            f"stall: {stall.late_ms:.1f} ms late, meanwhile CPU of the loop's thread "
            f"{stall.thread_ms:.1f} ms, of the process {stall.process_ms:.1f} ms"
        )
    beside = Beside("empty loop", late_ms(longest_first(empty, until)))
    what = "next start: the loop blocked, longest"
    return [Figure(what, late_ms(longest), "ms", beside, most=MOST_MS)]


@contextmanager
def empty_loop(report: Path) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *STALLS, str(report)], cwd=PROJECT)
    try:
        yield
    finally:
        stop(process)


def longest_first(report: Path, until: float) -> list[Stall]:
    stalls = [stall for stall in read_stalls(report) if stall.at <= until]
    return sorted(stalls, key=lambda stall: stall.late_ms, reverse=True)


def late_ms(stalls: Sequence[Stall]) -> float:
    return stalls[0].late_ms if stalls else 0.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=int, nargs="?", default=1_000_000)
    parser.add_argument("directories", type=int, nargs="?", default=10_000)
    parser.add_argument("--tree", type=Path)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        tree = kept_or_made(options.tree, folder, options.files, options.directories)
        size = size_of(tree)
        print(f"{size.files:,} files in {size.directories:,} directories")
        configure(folder, tree, 'existing = "adopt"\n')
        last, first = first_start(folder, tree, size)
        print_table([*first, *next_start(folder, tree, last), *stalls(folder)])


if __name__ == "__main__":
    main()
