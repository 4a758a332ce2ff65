"""Where paths lead, some of which may be on file systems that hang."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon import locate
from daemon.locate import Unanswered, resolved


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until this is set, whoever asks for what is called `hangs` waits."""
    over, real = threading.Event(), os.path.realpath

    def realpath(path: Path) -> str:
        if path.name.startswith("hangs"):
            over.wait()
        return real(path)

    monkeypatch.setattr(os.path, "realpath", realpath)
    monkeypatch.setattr(locate, "ANSWER_SECONDS", 0.2)
    yield over
    over.set()


def test_those_that_hang_hold_up_no_other(tmp_path: Path, over: threading.Event) -> None:
    """All others are known without their links; these are as written, and say so."""
    (tmp_path / "link").symlink_to(tmp_path / "a")
    names = ["hangs", "link", "hangs-too", "a"]
    began = time.monotonic()
    found = resolved([tmp_path / "b" / ".." / name for name in names])
    assert time.monotonic() - began < 30 * locate.ANSWER_SECONDS
    assert found == [tmp_path / name for name in ("hangs", "a", "hangs-too", "a")]
    assert [isinstance(path, Unanswered) for path in found] == [True, False, True, False]
    over.set()


def test_nothing_to_ask() -> None:
    """No path, no answer."""
    assert resolved([]) == []
