"""What the daemon costs while nothing happens: 10,000 directories, 20,000 tracked files.

    python tests/benchmarks/bench_idle.py [--directories 10000] [--seconds 60]

Starts the daemon, with its defaults, and the peers that are installed on the same tree; waits 15 s
after all of them are ready; and reads from /proc what the daemon with its child processes, and each
peer, used in the minute that follows: processor time (user and system), context switches, resident
memory. Beside them a bare Python process that does nothing but wake up, once a second: what that
costs is up to the machine, and to the hour, and no daemon that wakes up can cost less.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks.costs import Cost, cost_of
from tests.benchmarks.figures import Beside, Figure, print_table
from tests.benchmarks.peers import installed
from tests.benchmarks.running import configure, running, stop
from tests.benchmarks.trees import make_tree

FILES_A_DIRECTORY = 2
SETTLE_SECONDS = 15.0
MOST_PERCENT = 0.5
WAKE = "a wake-up a second"


def measure(folder: Path, tree: Path, seconds: float) -> dict[str, Cost]:
    """What each used in the window, all at the same time."""
    configure(folder, tree, 'existing = "adopt"\n')
    with ExitStack() as stack:
        daemon = stack.enter_context(running(folder))
        daemon.ready()
        pids = {"treewarden": daemon.pid}
        for peer, start in installed("inotifywait", "watchman").items():
            pids[peer] = stack.enter_context(start(tree)).pid
        pids[WAKE] = stack.enter_context(waking())
        time.sleep(SETTLE_SECONDS)
        before = {name: cost_of(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        return {name: used(before[name], cost_of(pid)) for name, pid in pids.items()}


@contextmanager
def waking() -> Iterator[int]:
    """The bare process."""
    process = subprocess.Popen([sys.executable, "-c", "import time\nwhile True: time.sleep(1)"])
    try:
        yield process.pid
    finally:
        stop(process)


def used(before: Cost, after: Cost) -> Cost:
    cpu, switches = after.cpu_seconds - before.cpu_seconds, after.switches - before.switches
    return after._replace(cpu_seconds=cpu, switches=switches)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directories", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        files = FILES_A_DIRECTORY * options.directories
        make_tree(folder / "tree", files, options.directories)
        costs = measure(folder, folder / "tree", options.seconds)
    percent = {name: 100 * cost.cpu_seconds / options.seconds for name, cost in costs.items()}
    for name, cost in costs.items():
        print(
            f"{name}: {cost.cpu_seconds:.2f} s of CPU in {options.seconds:g} s, "
            f"{cost.switches / options.seconds:.1f} context switches/s, "
            f"{cost.rss_mb:.1f} MB, processes: {cost.processes}"
        )
    peer = next((name for name in costs if name != "treewarden"), None)
    beside = Beside(peer, percent[peer]) if peer else None
    what = f"idle on {options.directories:,} directories"
    print_table([Figure(what, percent["treewarden"], "% of a core", beside, most=MOST_PERCENT)])


if __name__ == "__main__":
    main()
