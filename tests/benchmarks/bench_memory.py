"""Resident memory of the real daemon with many tracked files, idle, and beside its bare imports.

    python tests/benchmarks/bench_memory.py [files]

Makes the files in a temporary folder below the current one (1,000 directories), starts the daemon
with a watch that only tracks, waits until every file is `done` in the database, and reads
/proc/PID/status. The second start, on the unchanged tree, is measured as well.
"""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
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
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        ((count,),) = db.execute("SELECT count(*) FROM files WHERE state = 'done'")
    db.close()
    return int(count)


def run_daemon(folder: Path, files: int) -> None:
    command = [sys.executable, "-m", "daemon", "run", "--config", str(folder / "config.toml")]
    began = time.monotonic()
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log) as daemon,
    ):
        while b'"daemon.ready"' not in (folder / "log").read_bytes()[-2000:]:
            time.sleep(0.1)
            if (folder / "state" / "treewarden.db").exists() and tracked(
                folder / "state" / "treewarden.db"
            ) == files:
                break
        while tracked(folder / "state" / "treewarden.db") < files:
            time.sleep(0.1)
        took = time.monotonic() - began
        time.sleep(3)  # idle: what the burst borrowed has been given back, as far as it will be
        idle, peak = megabytes(daemon.pid, "VmRSS"), megabytes(daemon.pid, "VmHWM")
        daemon.send_signal(signal.SIGTERM)
    lines = (folder / "log").read_text("utf-8").splitlines()
    scans = [line for line in map(json.loads, lines) if line["event"] == "daemon.reconciled"]
    scan = f", scan {scans[0]['duration_ms'] / 1000:.1f} s" if scans else ""
    print(
        f"{files:,} files: idle {idle:.1f} MB, peak {peak:.1f} MB, "
        f"all tracked in {took:.1f} s{scan}"
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
        make_tree(folder / "tree", files)
        (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
        print("first start:")
        run_daemon(folder, files)
        print("next start, nothing changed:")
        run_daemon(folder, files)


if __name__ == "__main__":
    main()
