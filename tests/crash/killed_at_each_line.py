"""Takes a file away in a child that is killed before its Nth line; for N = 1, 2, ... to the end.

A program of its own, for a test must not fork itself: `killed_at_each_line.py TREE ARCHIVE WAY`.
After each kill the next daemon takes the file (`move`, `delete`), or finds that it is not there any
more (`gone`), or that another one has its path (`replaced`), which goes to another place, or that a
newer one came to its path before that daemon began (`newer`).
"""

import os
import shutil
import signal
import sys
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from daemon.config_after import After, Move
from daemon.core.model import Key
from daemon.engine.disk import seen_at
from daemon.handlers import Outcome, below, copying, parts, relocate, renaming, withdrawing
from daemon.handlers.below import File
from daemon.handlers.filing import Filing
from daemon.handlers.parts import Parts
from daemon.handlers.relocate import restore

CODE = {module.__file__ for module in (below, copying, parts, relocate, renaming, withdrawing)}
KEY = Key("w", b"d/a.csv")


def die_at(line: int) -> None:
    """Count the lines of the code in question, and end without a word before this one."""
    left = line

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in CODE:
            return None
        left -= event == "line"
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def take(filing: Filing, file: File) -> Outcome:
    class Never:
        def is_set(self) -> bool:
            return False

    return filing.take(KEY, file, Never())  # type: ignore[arg-type]


def killed(filing: Filing, file: File, line: int) -> bool:
    """Whether a child was killed before it was through."""
    child = os.fork()
    if not child:
        die_at(line)
        outcome = take(filing, file)
        os._exit(outcome.verdict != "success")
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return os.WIFSIGNALED(status)


def finished(filing: Filing, file: File, way: str) -> Outcome | None:
    """The daemon after the crash: either it finds the file taken, or it takes it once more."""
    path = Path(os.fsdecode(file.root + b"/" + file.path))
    if way == "newer":
        path.with_name("newer").write_text("newer")
        path.with_name("newer").replace(path)
    restore(file)
    if outcome := filing.taken(KEY, file):
        return outcome
    if way in {"move", "delete"}:
        return take(filing, file)
    if way == "newer":
        return None
    if way == "gone" or not path.exists():
        path.unlink(missing_ok=True)
    else:
        path.unlink()
        path.write_text("another file")
    return None


def main(tree: Path, archive: Path, way: str) -> None:
    after: After = "delete" if way == "delete" else Move(move=f"{archive}/{{date}}/{{relpath}}")
    state = tree.parent / "state"
    state.mkdir()
    record = Parts.open(state)
    filing = Filing(after, "w", record)
    for line in count(1):
        text = f"content {line}"
        (tree / "d").mkdir(exist_ok=True)
        (tree / "d/a.csv").write_text(text)
        seen = seen_at(bytes(tree / "d/a.csv"))
        assert seen is not None
        file = File(bytes(tree), KEY.path, seen)
        was_killed = killed(filing, file, line)
        record.clean()
        assert not list((state / "parts").iterdir()), line
        outcome = finished(filing, file, way)
        there = [path for path in archive.rglob("*") if path.is_file()]
        if outcome is not None:
            assert outcome.verdict == "success", (line, outcome)
            assert way == "newer" or not (tree / "d/a.csv").exists(), line
        if way != "delete":
            # A complete copy of what was not removed yet may have its name; a part has none.
            assert {path.name for path in there} <= {"a.csv"}, (line, there)
            assert {path.read_text() for path in there} <= {text}, line
        if way == "move":
            assert outcome is not None
            assert [bytes(path) for path in there] == [outcome.target], (line, outcome, there)
        if way == "newer":
            assert [path.read_text() for path in (tree / "d").iterdir()] == ["newer"], line
            assert [bytes(path) for path in there] == ([outcome.target] if outcome else []), line
        for folder in archive.iterdir():
            shutil.rmtree(folder)
        if not was_killed:
            print(line)  # noqa: T201 - what the test reads
            return


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
