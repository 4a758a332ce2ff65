"""`command` handlers beside xargs: files that wait, batches, and files as they arrive.

    python -m tests.benchmarks.bench_command [files=3000]

Each figure of ours stands beside that of its peer in the same run. `handled`: from the first start
to the last committed `done`. `arriving`: from the first file dropped into a watched tree to that.
xargs has two at a time, which is all that two cores can do. We have 64: a file is on record before
its program starts and after it has ended, and the more wait for the disk together, the less each
of them costs: with 8 places 0.95 ms of the daemon's CPU, with 64 it is 0.35 to 0.45. What the
machine can do at most two threads show that start the program and wait for it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from tests.benchmarks.running import Daemon, configure, running

PROGRAM = "/bin/true"
PLACES = 64
PLACES_OF_XARGS = 2
WATCH = """
create = true
[watch.settle]
quiet = 0
[[watch.step]]
name = "run"
concurrency = {places}
"""
ALONE = f'command = ["{PROGRAM}", "{{path}}"]\n'
BATCH = f'command = ["{PROGRAM}", "{{paths}}"]\nbatch = 100\n'
# What a figure must be of its peer's.
SHARE_OF_XARGS = 0.9
BATCHED_PER_SECOND = 2_000
TIMES_PIPELINE = 1.5


@contextmanager
def folder_for(step: str) -> Iterator[tuple[Path, Path]]:
    """A folder with a configuration, and the tree that it watches."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        folder, tree = Path(place), Path(place) / "tree"
        tree.mkdir()
        configure(folder, tree, WATCH.format(places=PLACES) + step)
        yield folder, tree


def drop(tree: Path, count: int) -> None:
    for number in range(count):
        (tree / f"file-{number:06}").write_bytes(b"content")


def done(daemon: Daemon, count: int) -> None:
    daemon.wait(lambda: daemon.database.in_state("done") >= count, every=0.05, deadline=140)


def between(daemon: Daemon, first: str) -> float:
    """Seconds from the first transition of a kind to the last `done`, by the database."""
    query = f"SELECT max(at) - min(at) FROM transitions WHERE trigger IN ('{first}', 'succeed')"  # noqa: S608
    return daemon.database.number(query) / 1e6


def handled(step: str, count: int) -> float:
    """Files per second that wait when the daemon starts."""
    with folder_for(step) as (folder, tree):
        drop(tree, count)
        with running(folder) as daemon:
            done(daemon, count)
            return count / between(daemon, "start")


def xargs(count: int) -> float:
    """The same program, started by xargs as often."""
    names = b"".join(b"/srv/incoming/file-%06d\n" % number for number in range(count))
    began = time.perf_counter()
    subprocess.run(["xargs", f"-P{PLACES_OF_XARGS}", "-n1", PROGRAM], input=names, check=True)
    return count / (time.perf_counter() - began)


def bare(count: int) -> float:
    """The same from two threads of a process that does nothing else: what the machine can do."""

    def start(first: int) -> None:
        for number in range(first, count, PLACES_OF_XARGS):
            subprocess.Popen([PROGRAM, f"/srv/incoming/file-{number:06}"]).wait()

    threads = [Thread(target=start, args=(first,)) for first in range(PLACES_OF_XARGS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - began)


def arriving(count: int) -> float:
    """Seconds from the first drop to the last `done`."""
    with folder_for(ALONE) as (folder, tree), running(folder) as daemon:
        daemon.ready()
        began = time.time()
        drop(tree, count)
        done(daemon, count)
        query = "SELECT max(at) FROM transitions WHERE trigger = 'succeed'"
        return daemon.database.number(query) / 1e6 - began


def pipeline(count: int) -> float:
    """The same with inotifywait and xargs, which forget what they have not done yet."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        watch = ["inotifywait", "-q", "-m", "-e", "close_write", "--format", "%w%f", place]
        pipe = subprocess.PIPE
        with subprocess.Popen(watch, stdout=pipe) as watcher:
            head = subprocess.Popen(["head", f"-n{count}"], stdin=watcher.stdout, stdout=pipe)
            runner = subprocess.Popen(
                ["xargs", f"-P{PLACES_OF_XARGS}", "-n1", PROGRAM], stdin=head.stdout
            )
            time.sleep(1)  # it says nothing with -q when it watches; one folder takes no time
            began = time.perf_counter()
            drop(Path(place), count)
            runner.wait(140)
            took = time.perf_counter() - began
            watcher.terminate()
            head.wait()
        return took


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3_000
    places = f"{PLACES} at a time beside {PLACES_OF_XARGS}"
    print(f"{count} files, {PROGRAM} for each, {places}, on {os.cpu_count()} cores")
    peer, ours, most = xargs(count), handled(ALONE, count), bare(count)
    print(
        f"handled  {ours:>8,.0f} files/s   xargs    {peer:>8,.0f}   "
        f"{ours / peer:.2f} of it, at least {SHARE_OF_XARGS}"
    )
    print(
        f"{'':27} two threads {most:>5,.0f}   {ours / most:.2f} of it; {most / peer:.2f} of xargs"
    )
    batched = handled(BATCH, 10 * count)
    print(f"batched  {batched:>8,.0f} files/s   100 in a run, at least {BATCHED_PER_SECOND:,}")
    ours = arriving(count)
    if not shutil.which("inotifywait"):
        print(f"arriving {ours:>8.2f} s         inotifywait is not installed: nothing beside it")
        return
    peer = pipeline(count)
    print(
        f"arriving {ours:>8.2f} s         pipeline {peer:>8.2f} s "
        f"{ours / peer:.2f} times it, at most {TIMES_PIPELINE}"
    )


if __name__ == "__main__":
    main()
