"""What the commands answer with, before it is text or JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from daemon.core.model import Key, State
from daemon.core.settle import Condition
from daemon.engine.detection import Detection
from daemon.engine.standing import Standing

STATES: tuple[str, ...] = get_args(State)


class StepStatus(NamedTuple):
    """One step: how many files wait for it and are in it, and how it stands.

    `standing` is what the daemon said last of it, whether it runs now or not.
    """

    name: str
    waiting: int
    running: int
    standing: Standing


class WatchStatus(NamedTuple):
    """One watch; `root` is None for one that the configuration no longer has.

    `detection` is what the daemon said last of its watching, whether it runs now or not.
    """

    name: str
    root: bytes | None
    files: dict[str, int]
    oldest_ready: int | None
    next_retry: int | None
    detection: Detection | None
    steps: Sequence[StepStatus] = ()


class Status(NamedTuple):
    """The daemon, its database, and its watches; `pid` is None when it does not run."""

    config: Path
    pid: int | None
    state_dir: Path
    database: Path
    size: int
    schema: int
    owed: int
    watches: list[WatchStatus]


class Widths(NamedTuple):
    """How wide the columns of `ls` are: it prints its first line before it knows the last."""

    watch: int
    step: int


class Explanation(NamedTuple):
    """Why a file is where it is. `waits`: something is missing, or nobody looks after it.

    `key` and `state` are None for a path that no watch has.
    """

    key: Key | None
    state: str | None
    waits: bool
    conditions: list[Condition]
    sentences: list[str]


def seconds_since(at: int, now: int) -> float:
    """Between two times in microseconds; the clock may have been put back in between."""
    return max(0, now - at) / 1_000_000
