"""Resident memory of the real daemon with many tracked files, idle, and beside its bare imports.

    python tests/benchmarks/bench_memory.py [files]

Makes the files in a temporary folder below the current one (1,000 directories), starts the daemon
with a watch that only tracks, waits until every file is `done` in the database, and reads
/proc/PID/status. The second start, on the unchanged tree, is measured as well.
"""

import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

DIRECTORIES = 1_000
CONFIG = """
[daemon]
state_dir = "state"
runtime_dir = "state/run"
[[watch]]
name = "many"
path = "tree"
[watch.settle]
quiet = "0s"
"""


def make_tree(root: Path, files: int) -> None:
    for number in range(DIRECTORIES):
        folder = root / f"d{number:04}"
        folder.mkdir(parents=True)
        for index in range(files // DIRECTORIES):
            (folder / f"f{index:04}").touch()


def megabytes(pid: int, field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found
    return int(found[1]) / 1024


def tracked(database: Path) -> int:
    """How many files are done; 0 as long as the daemon has not made its tables."""
    try:
        db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return 0
    with closing(db):
        try:
            ((count,),) = db.execute("SELECT count(*) FROM files WHERE state = 'done'")
        except sqlite3.OperationalError:
            return 0
    return int(count)


def is_ready(log: Path) -> bool:
    """The first scan is over."""
    return b'"daemon.ready"' in log.read_bytes()


def run_daemon(folder: Path, files: int) -> None:
    command = [sys.executable, "-m", "daemon", "run", "--config", str(folder / "config.toml")]
    database, log = folder / "state" / "treewarden.db", folder / "log"
    began = time.monotonic()
    with log.open("w") as out, subprocess.Popen(command, stdout=out) as daemon:
        try:
            while tracked(database) < files or not is_ready(log):
                time.sleep(0.2)
            took = time.monotonic() - began
            time.sleep(3)  # idle: what the burst borrowed has been given back, as far as it will be
            idle, peak = megabytes(daemon.pid, "VmRSS"), megabytes(daemon.pid, "VmHWM")
        finally:
            daemon.send_signal(signal.SIGTERM)
    print(f"{files:,} files: idle {idle:.1f} MB, peak {peak:.1f} MB, ready in {took:.1f} s")


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
        make_tree(folder / "tree", files)
        (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
        print("first start:")
        run_daemon(folder, files)
        print("next start, nothing changed:")
        run_daemon(folder, files)


if __name__ == "__main__":
    main()
