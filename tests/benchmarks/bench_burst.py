"""10,000 small files into a watched directory at full speed, beside peers that merely report them.

    python tests/benchmarks/bench_burst.py [files=10000] [rounds=5]

A process of its own writes 1 KB into each file, in one flat directory on /dev/shm where there is
one: on a disk the writer is slower than what is measured. Each round starts everything anew, the
daemon and the peers in turn, and counts from the first write.

* treewarden: tracking only, `quiet = "0s"`, its database on the file system of the current
  directory. Until all files are `done` and committed, and until all lines are in the log.
* watchman: until a subscription has reported all the names.
* inotifywait: the same, in lines of text.
* writer: until the last file is written, while the daemon runs.
"""

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.benchmarks.figures import Beside, Figure, print_table, spread
from tests.benchmarks.peers import Start, installed
from tests.benchmarks.running import configure, running

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
WATCH = '[watch.settle]\nquiet = "0s"\n'
EVERY_SECONDS = 0.002
WRITER = """
import os, sys, time
content = b"x" * 1024
began = time.monotonic()
for number in range(int(sys.argv[2])):
    fd = os.open(f"{sys.argv[1]}/f{number:05}", os.O_WRONLY | os.O_CREAT, 0o644)
    os.write(fd, content)
    os.close(fd)
print(began, time.monotonic())
"""


@contextmanager
def directory() -> Iterator[Path]:
    """A new one to watch."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else Path.cwd()
    with tempfile.TemporaryDirectory(dir=parent) as name:
        yield Path(name)


def begin_writing(tree: Path, files: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(tree), str(files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def written(writer: subprocess.Popen[str]) -> tuple[float, float]:
    """When the writer began, and when it had ended."""
    said, _ = writer.communicate()
    began, ended = said.split()
    return float(began), float(ended)


def daemon_round(files: int) -> dict[str, float]:
    with directory() as tree, tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        configure(folder, tree, WATCH)
        with running(folder) as daemon:
            database, log = daemon.database, daemon.log
            daemon.ready()
            writer = begin_writing(tree, files)
            committed = daemon.wait(lambda: database.in_state("done") >= files, every=EVERY_SECONDS)
            last = database.last_transition()
            logged = daemon.wait(lambda: log.read().committed >= last, every=EVERY_SECONDS)
            began, ended = written(writer)
    since = began - daemon.began
    return {
        "treewarden, committed": committed - since,
        "treewarden, logged": logged - since,
        "writer": ended - began,
    }


def peer_round(start: Start, files: int) -> float:
    with directory() as tree, start(tree) as reporter:
        writer = begin_writing(tree, files)
        reported = reporter.reported(files)
        began, _ = written(writer)
    return reported - began


def main() -> None:
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    peers = installed("watchman", "inotifywait")
    times: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, seconds in daemon_round(files).items():
            times[name].append(seconds)
        for name, start in peers.items():
            times[name].append(peer_round(start, files))
    for name, runs in times.items():
        print(f"{name}: {spread('s', runs)}")
    peer = next(iter(peers), None)
    beside = Beside(peer, median(times[peer])) if peer else None
    print_table(
        [
            Figure(f"{files:,} files: {what}", median(times[f"treewarden, {key}"]), "s", beside, 3)
            for what, key in (("done, committed", "committed"), ("all lines in the log", "logged"))
        ]
    )


if __name__ == "__main__":
    main()
