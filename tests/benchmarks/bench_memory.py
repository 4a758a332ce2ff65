"""Resident memory of the real daemon with many tracked files, idle, and beside its bare imports.

    python tests/benchmarks/bench_memory.py [files]

Makes the files in a temporary folder below the current one (1,000 directories), starts the daemon
with a watch that only tracks, waits until every file is `done` in the database, and reads
/proc/PID/status of the daemon and of its child processes. The second start, on the unchanged tree,
is measured as well.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.costs import cost_of, megabytes
from tests.benchmarks.running import Daemon, configure, running
from tests.benchmarks.trees import make_tree

DIRECTORIES = 1_000
IDLE_SECONDS = 3.0
WATCH = '[watch.settle]\nquiet = "0s"\n'


def run_daemon(folder: Path, files: int) -> None:
    with running(folder) as daemon:
        daemon.ready()
        took = daemon.wait(lambda: daemon.database.in_state("done") >= files)
        # Idle: what the burst borrowed has been given back, as far as it will be.
        time.sleep(IDLE_SECONDS)
        print(f"{files:,} files: {memory(daemon)}, ready in {took:.1f} s")


def memory(daemon: Daemon) -> str:
    own, family = megabytes(daemon.pid, "VmRSS"), cost_of(daemon.pid)
    peak = megabytes(daemon.pid, "VmHWM")
    return (
        f"idle {family.rss_mb:.1f} MB, processes: {family.processes}, "
        f"the daemon's own {own:.1f} MB, its peak {peak:.1f} MB"
    )


def bare_imports() -> None:
    script = "import os, daemon.service\nprint(open('/proc/self/status').read())"
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    found = re.search(r"VmRSS:\s+(\d+) kB", said.stdout)
    assert found
    print(f"the same imports, doing nothing: {int(found[1]) / 1024:.1f} MB")


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    bare_imports()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        make_tree(folder / "tree", files, DIRECTORIES)
        configure(folder, folder / "tree", WATCH)
        print("first start:")
        run_daemon(folder, files)
        print("next start, nothing changed:")
        run_daemon(folder, files)


if __name__ == "__main__":
    main()
