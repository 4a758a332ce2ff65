"""The disk: one look at a path. All of it runs in threads.

With `sight`, which watchers have as well, `listing`, which reads directories, `identity`, which
looks at roots, `signs`, which removes markers, `births`, `reading` and what handlers do the only
module that touches watched trees.
Nothing here follows a symlink at the last component.
"""

import os
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from daemon.core.markers import is_current
from daemon.core.model import Fingerprint
from daemon.core.settle import Look, is_quiet
from daemon.engine.clock import now_us
from daemon.engine.identity import RootId
from daemon.engine.listing import ABSENT
from daemon.engine.sight import is_closed, is_inside, numbers_of
from daemon.errors import LASTING


class Question(NamedTuple):
    """A path to look at, below a root that should still be the same directory.

    Without a root nothing is absent. `quiet` in microseconds, None: do not judge whether it has
    settled. `marker`: the path of the marker that the file needs for that.
    """

    path: bytes
    root: RootId | None = None
    quiet: int | None = None
    probe: bool = True
    stood: Fingerprint | None = None
    own_clock: bool = True
    marker: bytes | None = None


def fingerprint(st: os.stat_result) -> Fingerprint:
    """The part of a `stat` that tells one content from another."""
    return Fingerprint._make(numbers_of(st))


def look_at_all(
    questions: Sequence[Question], go_on: Callable[[], object] = lambda: None
) -> list[Look]:
    """One look each. Blocks; raises nothing: what the kernel refuses is part of the answer.

    `go_on` is called after each of them.
    """
    folders: dict[bytes, bool] = {}
    looks = []
    for question in questions:
        looks.append(look_at(question, folders))
        go_on()
    return looks


def look_at(question: Question, folders: dict[bytes, bool] | None = None) -> Look:
    """What stands at a path now. `folders`: which are inside the tree, as far as it is known."""
    folder = question.path.rpartition(b"/")[0]
    known = {} if folders is None else folders
    if question.root and not is_inside(folder, question.root.path, known):
        return Look("elsewhere")
    marker = seen_at(question.marker) if question.marker else None
    try:
        st = os.lstat(question.path)
    except OSError as error:
        if error.errno in ABSENT:
            return _absent(question.root)
        lasting = error.errno in LASTING
        return Look("error", error=f"{error.strerror} (lstat)", lasting=lasting)
    kind = _kind(st.st_mode)
    if kind != "file":
        return Look(kind)
    seen = fingerprint(st)
    marked = (marker is not None and is_current(marker, seen)) if question.marker else None
    if question.quiet is None or not _is_quiet(seen, question, question.quiet):
        return Look("file", seen, marked=marked, marker=marker)
    probe = question.probe and marked is not False
    closed = is_closed(question.path, seen) if probe else None
    return Look("file", seen, quiet=True, closed=closed, marked=marked, marker=marker)


def seen_at(path: bytes) -> Fingerprint | None:
    """What a regular file shows; None for anything else, and where the kernel shows nothing."""
    try:
        st = os.lstat(path)
    except OSError:
        return None
    return fingerprint(st) if stat.S_ISREG(st.st_mode) else None


def _is_quiet(seen: Fingerprint, question: Question, quiet: int) -> bool:
    return is_quiet(seen, now_us(), quiet, question.stood, own_clock=question.own_clock)


def _absent(root: RootId | None) -> Look:
    """A file is only absent from a root that is there: an unmounted share removes nothing."""
    if root is None:
        return Look("error", error="the watched root is not there")
    try:
        st = os.stat(root.path)  # noqa: PTH116 - a path of bytes
    except OSError as error:
        return Look("error", error=f"the watched root cannot be reached: {error.strerror}")
    if (st.st_dev, st.st_ino) != (root.dev, root.ino):
        return Look("error", error="another directory has taken the place of the watched root")
    return Look("absent")


def is_missing(path: bytes) -> bool:
    """Known to be no directory; what cannot be looked at is not known. Blocks."""
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "other"
