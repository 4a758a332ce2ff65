"""One file at a time: from its close to the line that says that it has settled.

    python tests/benchmarks/bench_latency.py [files=200]
    python tests/benchmarks/bench_latency.py --isolated

A file is created, written and closed every 50 ms; then each of them is appended to in the same way.
The daemon tracks only, with `quiet = "0s"`; its log is a pipe, and what counts is the first line
after the close that leads to `done`: `settle`, or `discover` where a file settles at once. The
transition is committed, with `synchronous=FULL`, before its line is written. Peers that are
installed report the bare name of what they saw, store nothing, and are measured in the same way,
one after the other.

With `--isolated`, 20 files are created, one every 15 s: each meets a daemon that has been idle. It
takes five minutes for the daemon, and as long for each peer.
"""

import argparse
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.figures import Beside, Figure, print_table
from tests.benchmarks.peers import Reporter, installed, treewarden
from tests.benchmarks.running import configure

WATCH = '[watch.settle]\nquiet = "0s"\n'
CONTENT = b"x" * 1024
LAST_SECONDS = 5.0
MOST_MS = {"p50": 10, "p99": 30}


class Pace(NamedTuple):
    """How many files, and how long from one to the next."""

    files: int
    seconds: float


class Latencies(NamedTuple):
    """Milliseconds from close to report, shortest first, and how many were never reported."""

    values: list[float]
    missing: int

    def quantile(self, share: float) -> float:
        if not self.values:
            return math.inf
        return self.values[math.ceil(share * len(self.values)) - 1]


def follow(reporter: Reporter, tree: Path, mode: str, pace: Pace) -> Latencies:
    """Write one file after the other, and note when each is reported."""
    closed: dict[str, float] = {}
    seen: dict[str, float] = {}
    until = time.monotonic()
    for number in range(pace.files):
        name = f"f{number:04}"
        with (tree / name).open(mode) as file:
            file.write(CONTENT)
        closed[name] = time.monotonic()
        until += pace.seconds
        collect(reporter, closed, seen, until)
    collect(reporter, closed, seen, time.monotonic() + LAST_SECONDS, enough=pace.files)
    values = sorted(1e3 * (seen[name] - closed[name]) for name in seen)
    return Latencies(values, pace.files - len(values))


def collect(
    reporter: Reporter,
    closed: dict[str, float],
    seen: dict[str, float],
    until: float,
    enough: int | None = None,
) -> None:
    """Take reports until then, or until there are enough: the first counts for each file."""
    while len(seen) != enough and reporter.wait(until - time.monotonic()):
        now, names = reporter.take()
        for name in names:
            if name in closed:
                seen.setdefault(name, now)


def measure(reporter: Reporter, tree: Path, pace: Pace, works: Sequence[str]) -> list[Latencies]:
    modes = {"create": "xb", "append": "ab"}
    return [follow(reporter, tree, modes[work], pace) for work in works]


def measure_daemon(folder: Path, pace: Pace, works: Sequence[str]) -> list[Latencies]:
    tree = folder / "treewarden"
    tree.mkdir()
    configure(folder, tree, WATCH)
    with treewarden(folder) as reporter:
        return measure(reporter, tree, pace, works)


def report(found: dict[str, list[Latencies]], works: Sequence[str]) -> None:
    for name, latencies in found.items():
        for work, latency in zip(works, latencies, strict=True):
            p50, p99, longest = (latency.quantile(share) for share in (0.5, 0.99, 1))
            print(
                f"{name}, {work}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
                f"longest {longest:.2f} ms, never reported {latency.missing}"
            )
    peer = next((name for name in found if name != "treewarden"), None)
    figures = []
    for index, work in enumerate(works):
        for quantile, share in (("p50", 0.5), ("p99", 0.99)):
            value = found["treewarden"][index].quantile(share)
            beside = Beside(peer, found[peer][index].quantile(share)) if peer else None
            what = f"{work}: {quantile} from close to settled"
            figures.append(Figure(what, value, "ms", beside, most=MOST_MS[quantile]))
    print_table(figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", type=int, nargs="?", default=200)
    parser.add_argument("--isolated", action="store_true")
    options = parser.parse_args()
    pace = Pace(20, 15.0) if options.isolated else Pace(options.files, 0.05)
    works = ("create",) if options.isolated else ("create", "append")
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        found = {"treewarden": measure_daemon(folder, pace, works)}
        for peer, start in installed("inotifywait", "watchman").items():
            tree = folder / peer
            tree.mkdir()
            with start(tree) as reporter:
                found[peer] = measure(reporter, tree, pace, works)
    report(found, works)


if __name__ == "__main__":
    main()
