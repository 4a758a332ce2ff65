"""Looks at one side of the surroundings each; `environment` is all of them together."""

import os
from typing import Literal, NamedTuple

from daemon.core.texts import shown


class Finding(NamedTuple):
    """One thing that was looked at: `error` keeps the daemon from its work, `warning` may."""

    level: Literal["ok", "warning", "error"]
    what: str
    detail: str
    remedy: str | None = None


def quoted(path: str | bytes | os.PathLike[str]) -> str:
    """A path as it reads in a sentence."""
    return f"'{shown(os.fsencode(path))}'"
