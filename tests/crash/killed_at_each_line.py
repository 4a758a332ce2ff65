"""Takes a file away in a child that is killed before its Nth line; for N = 1, 2, ... to the end.

A program of its own, for a test must not fork itself: `killed_at_each_line.py TREE ARCHIVE WAY`.
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
from daemon.handlers import Outcome, copying, relocate, renaming
from daemon.handlers.filing import Filing
from daemon.handlers.relocate import File

CODE = {module.__file__ for module in (copying, relocate, renaming)}
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


def main(tree: Path, archive: Path, way: str) -> None:
    after: After = "delete" if way == "delete" else Move(move=f"{archive}/{{date}}/{{relpath}}")
    filing = Filing(after, "w")
    for line in count(1):
        text = f"content {line}"
        (tree / "d").mkdir(exist_ok=True)
        (tree / "d/a.csv").write_text(text)
        seen = seen_at(bytes(tree / "d/a.csv"))
        assert seen is not None
        file = File(bytes(tree), KEY.path, seen)
        was_killed = killed(filing, file, line)
        # The daemon after the crash: either it finds the file taken, or it takes it once more.
        outcome = filing.taken(KEY, file) or take(filing, file)
        assert outcome.verdict == "success", (line, outcome)
        assert not (tree / "d/a.csv").exists(), line
        there = [path for path in archive.rglob("*") if path.is_file()]
        if way == "move":
            assert [bytes(path) for path in there] == [outcome.target], (line, outcome, there)
            assert there[0].read_text() == text, line
            shutil.rmtree(there[0].parent.parent)
        if not was_killed:
            print(line)  # noqa: T201 - what the test reads
            return


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
