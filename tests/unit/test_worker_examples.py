"""The workers of the documentation do what it says, in each of their languages."""

import os
from pathlib import Path

import pytest

from daemon.config_steps import WorkerStep
from daemon.core.model import Key
from daemon.handlers import Job
from daemon.handlers.worker import WorkerHandler

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("worker.*"))
CANNOT = {".sh": "a name that is beyond a shell"}


def job(folder: Path, name: bytes) -> Job:
    return Job(1, Key("w", name), os.fsencode(folder) + b"/" + name, "s", 1, "k")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.suffix)
async def test_example(example: Path, tmp_path: Path) -> None:
    """It counts lines, whatever the name of the file; and fails where there is none."""
    handler = WorkerHandler(WorkerStep(name="s", worker=(str(example),), timeout=20, in_flight=4))
    for name in (b"plain", "käse's $(x) %s".encode(), b"two words", b'a "quoted"\n', b"\xff"):
        write(tmp_path, name)
        outcome = await handler.run(job(tmp_path, name))
        if (b"\n" in name or b"\xff" in name) and example.suffix in CANNOT:
            assert (outcome.verdict, outcome.error) == ("reject", CANNOT[example.suffix])
        else:
            assert (outcome.verdict, outcome.result) == ("success", '{"lines":3}'), outcome.error
    assert (await handler.run(job(tmp_path, b"gone"))).verdict == "retry"
    await handler.close()


def write(folder: Path, name: bytes) -> None:
    (folder / os.fsdecode(name)).write_text("1\n2\n3\n")


def test_there_are_three() -> None:
    """A language with threads, one that is on every machine, and the shell."""
    assert {path.suffix for path in EXAMPLES} == {".py", ".pl", ".sh"}
