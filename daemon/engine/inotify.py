"""inotify's limits: which one counts, and what it should be; see inotify(7)."""

from pathlib import Path
from typing import NamedTuple

_SYS = Path("/proc/sys")
_LEAST = 65_536


class Setting(NamedTuple):
    """A sysctl and a value for it."""

    sysctl: str
    value: int


def setting_in_force(limit: str, sys: Path = _SYS) -> Setting:
    """The sysctl that `max_user_watches` or `max_user_instances` is set by, and what it is now.

    A container has a limit of its own beside that of the whole machine; the lower one counts.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    names = (f"fs.inotify.{limit}", f"user.{limit.replace('user', 'inotify')}")
    settings = [_read(name, sys) for name in names if (sys / name.replace(".", "/")).exists()]
    return min(settings or [_read(names[0], sys)], key=lambda setting: setting.value)


def enough(wanted: int, allowed: int) -> int:
    """A power of two that leaves as much again free."""
    least = _LEAST if allowed >= 1024 else 256  # noqa: PLR2004 - watches are counted in thousands
    return max(least, 1 << (2 * wanted - 1).bit_length())


def remedy(limit: str, wanted: int, sys: Path = _SYS) -> Setting | None:
    """What to set so that a limit which was met allows for so many; None if it cannot be read."""
    try:
        name, allowed = setting_in_force(limit, sys)
    except (OSError, ValueError):
        return None
    return Setting(name, enough(max(wanted, allowed + 1), allowed))


def _read(name: str, sys: Path) -> Setting:
    return Setting(name, int((sys / name.replace(".", "/")).read_text(encoding="ascii")))
