"""The README's first command and first session, run as they stand there."""

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.schema import faults_of_line

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEADLINE_SECONDS = 100.0


def command(marker: str) -> str:
    """The shell command below a marker of the README."""
    found = re.search(rf"<!-- {marker} -->\n```sh\n(.*?)```", README, re.DOTALL)
    assert found, marker
    return found[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a fresh checkout holds, and nothing that lies about here besides."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (ROOT / name).exists():
            target = tmp_path / "treewarden" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return tmp_path / "treewarden"


@pytest.fixture
def daemon_of_readme(checkout: Path) -> Iterator[tuple[Path, "queue.Queue[str]"]]:
    """The first command, running in a shell as it does for a reader; and its lines."""
    shell = subprocess.Popen(
        ["sh", "-c", command("run-command")],
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert shell.stdout
        for line in shell.stdout:
            lines.put(line)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield checkout, lines
    finally:
        os.killpg(shell.pid, signal.SIGINT)
        shell.wait(DEADLINE_SECONDS)
        reader.join()
        assert shell.stdout
        shell.stdout.close()


def until(lines: "queue.Queue[str]", event: str) -> list[dict[str, Any]]:
    """The lines up to and including the one with this event."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["event"] != event:
        found.append(json.loads(lines.get(timeout=DEADLINE_SECONDS)))
    return found


@pytest.mark.timeout(300)
def test_first_session(daemon_of_readme: tuple[Path, "queue.Queue[str]"]) -> None:
    """The first command ends in a ready daemon, and a file dropped in gets its four lines."""
    checkout, lines = daemon_of_readme
    until(lines, "daemon.ready")
    subprocess.run(["sh", "-c", command("drop-command")], cwd=checkout, check=True)
    session = [line["event"] for line in until(lines, "succeed")]
    assert session == ["discover", "settle", "start", "succeed"]
    for question in re.findall(r"^\$ (\.venv/bin/treewarden .*)$", README, re.MULTILINE):
        answer = subprocess.run(
            ["sh", "-c", question], cwd=checkout, capture_output=True, text=True, check=True
        )
        assert answer.stdout


def test_session_in_readme_is_documented() -> None:
    """The lines that the README shows are lines as the schema has them."""
    shown = [json.loads(line) for line in README.splitlines() if line.startswith('{"timestamp"')]
    assert [fault for line in shown for fault in faults_of_line(line)] == []
    assert [line["event"] for line in shown][-4:] == ["discover", "settle", "start", "succeed"]
