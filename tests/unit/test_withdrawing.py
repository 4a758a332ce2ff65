"""What meets a file in the moment in which it is taken away: nothing is lost, or taken in error."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.config_after import Move
from daemon.core.model import Key
from daemon.handlers import Job, Outcome, copying, relocate, renaming, withdrawing
from daemon.handlers.below import Absent, Changed
from daemon.handlers.filing import Filing, FilingHandler
from daemon.handlers.relocate import delete, move
from daemon.handlers.threads import Threads
from tests.unit import shortage
from tests.unit.test_relocate import change, files, place, replace, tree, written

__all__ = ["tree"]


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert Path(folder).stat().st_dev != tmp_path.stat().st_dev
        yield Path(folder)


def before_a_rename(
    monkeypatch: pytest.MonkeyPatch, number: int, *happen: Callable[[], object]
) -> None:
    """Have something happen before the rename of this number, and the next before the next one."""
    calls = iter(range(1_000))

    def rename(name: bytes, target: bytes, *folders: int) -> None:
        call = next(calls) - number
        if 0 <= call < len(happen):
            happen[call]()
        renaming.rename_new(name, target, *folders)

    monkeypatch.setattr(withdrawing, "rename_new", rename)


def another(tree: Path, text: str) -> None:
    (tree / "other").write_text(text)
    (tree / "other").replace(tree / "d/a.csv")


@pytest.mark.parametrize("happens", [change, replace])
def test_another_file_in_the_last_moment(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None]
) -> None:
    """What was put there or written before the rename is seen after it, and given back."""
    file = written(tree)
    before_a_rename(monkeypatch, 0, lambda: happens(tree))
    with pytest.raises(Changed):
        move(file, place(tmp_path, "a.csv"))
    assert list(files(tmp_path)) == ["tree/d/a.csv"]


def test_another_file_before_the_unlink(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was put there in the last moment is not deleted."""
    file = written(tree)
    before_a_rename(monkeypatch, 0, lambda: another(tree, "second"))
    with pytest.raises(Changed):
        delete(file)
    assert files(tree) == {"d/a.csv": "second"}


@pytest.mark.parametrize("happens", [another, Path.unlink])
def test_another_file_after_the_copy(
    tree: Path, memory: Path, monkeypatch: pytest.MonkeyPatch, happens: Callable[..., None]
) -> None:
    """The copy is that of the file that was handled: it stays, and is what success has to tell."""
    file = written(tree)
    path, text = (tree, "second") if happens is another else (tree / "d/a.csv", False)
    before_a_rename(monkeypatch, 0, lambda: happens(path, text))
    assert move(file, place(memory, "a.csv")) == bytes(memory / "a.csv")
    assert files(memory) == {"a.csv": "content"}
    assert files(tree) == ({"d/a.csv": "second"} if happens is another else {})


def test_replaced_twice(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be given back, for its name is taken again, gets a name beside it."""
    file = written(tree)
    (tmp_path / "archive").mkdir()
    before_a_rename(monkeypatch, 0, lambda: another(tree, "second"), lambda: another(tree, "third"))
    with pytest.raises(Changed, match=r"a\.1\.csv"):
        move(file, place(tmp_path / "archive", "a.csv"))
    assert files(tmp_path) == {"tree/d/a.csv": "third", "tree/d/a.1.csv": "second"}


def test_gone_in_the_last_moment(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is removed then is absent, which is no fault of the place."""
    file = written(tree)
    before_a_rename(monkeypatch, 0, (tree / "d/a.csv").unlink)
    with pytest.raises(Absent):
        move(file, place(tmp_path, "a.csv"))


def test_open_for_writing_after_the_copy(
    tree: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is complete is told of though the file cannot be removed yet."""
    file, opened = written(tree), []

    def open_and_sync(folder: bytes) -> None:
        opened.append((tree / "d/a.csv").open("a"))
        copying.sync_folder(folder)

    monkeypatch.setattr(relocate, "sync_folder", open_and_sync)
    after = Move(move=f"{memory}/{{name}}")
    outcome = Filing(after, "w").take(Key("w", b"d/a.csv"), file, threading.Event())
    opened[0].close()
    assert (outcome.verdict, outcome.target) == ("retry", bytes(memory / "a.csv"))
    assert files(tree) == {"d/a.csv": "content"}


@pytest.mark.parametrize("left", ["the file", "another"])
@pytest.mark.parametrize("since", [None, "newest"])
def test_withdrawn_by_who_was_killed(tree: Path, left: str, since: str | None) -> None:
    """The next start gives it its name again, or another one beside a file that came since."""
    file = written(tree)
    if left == "another":
        another(tree, "second")
    path = tree / "d/a.csv"
    text = path.read_text()
    path.rename(path.with_name(os.fsdecode(withdrawing.hidden_of(b"a.csv"))))
    if since:
        path.write_text(since)
    relocate.restore(file)
    expected = {"d/a.csv": text} if not since else {"d/a.csv": since, "d/a.1.csv": text}
    if since and left == "the file":  # it is taken from there, and has nothing to do with the other
        assert Filing("delete", "w").taken(Key("w", b"d/a.csv"), file) == Outcome("success")
        expected = {"d/a.csv": since}
    assert files(tree) == expected


@pytest.mark.parametrize("copied", [False, True])
def test_withdrawn_and_copied(tree: Path, memory: Path, *, copied: bool) -> None:
    """A file that is taken from its hidden name gets the place, and a copy, that it has once."""
    file = written(tree)
    path = tree / "d/a.csv"
    if copied:
        shutil.copy2(path, memory / "a.csv")
    path.rename(path.with_name(os.fsdecode(withdrawing.hidden_of(b"a.csv"))))
    path.write_text("newest")
    relocate.restore(file)
    filing = Filing(Move(move=f"{memory}/{{name}}"), "w")
    outcome = filing.taken(Key("w", b"d/a.csv"), file)
    assert outcome == Outcome("success", target=bytes(memory / "a.csv"))
    assert files(memory) == {"a.csv": "content"}
    assert files(tree) == {"d/a.csv": "newest"}


def test_somebody_removes_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is removed by its hidden name is absent, as by any other."""
    file = written(tree)

    def rename(*what: Any) -> None:
        renaming.rename_new(*what)
        for path in (tree / "d").iterdir():
            path.unlink()

    monkeypatch.setattr(withdrawing, "rename_new", rename)
    with pytest.raises(Absent):
        delete(file)


async def test_no_thread(tree: Path) -> None:
    """Without a thread that could do it nothing is done, now or later, and no attempt is spent."""
    file = written(tree)
    key = Key("w", b"d/a.csv")
    job = Job(1, key, bytes(tree / "d/a.csv"), "on_done", 1, "k", seen=file.seen)
    threads = Threads("take", 1)
    handler = FilingHandler("delete", "w", threads)
    with shortage.of_threads():
        outcome = await handler.run(job)
    assert (outcome.verdict, files(tree)) == ("defer", {"d/a.csv": "content"})
    assert f"{outcome.error}".startswith("cannot take it away: can't start new thread")
    await threads.run(lambda: None)  # after what had no thread, if that is to have one later
    assert files(tree) == {"d/a.csv": "content"}
    assert (await handler.run(job)).verdict == "success"
    await handler.close()


def test_no_permission(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot go there is not touched: not even its ctime is another."""
    file = written(tree)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(PermissionError):
        move(file, place(tmp_path, "a.csv"))
    assert (tree / "d/a.csv").stat().st_ctime_ns == file.seen.ctime_ns


def test_never_given_back(tree: Path) -> None:
    """What no start has met is given back when the next file of that name is taken."""
    path = tree / "d/a.csv"
    path.write_text("second")
    path.rename(path.with_name(os.fsdecode(withdrawing.hidden_of(b"a.csv"))))
    delete(written(tree))
    assert files(tree) == {"d/a.1.csv": "second"}


def test_error_of_the_place(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot go the file has its name again."""
    file = written(tree)
    monkeypatch.setattr("daemon.core.targets.MOST", 1)
    (tmp_path / "a.csv").write_text("in the way")
    with pytest.raises(FileExistsError):
        move(file, place(tmp_path, "a.csv"))
    assert files(tree) == {"d/a.csv": "content"}
