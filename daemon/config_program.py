"""What a step that starts a program may say of it: the readers of its values, and its limits."""

import pwd
import re
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from daemon import config_values as values
from daemon.config_report import Finding, WrongValueError, show, wrong
from daemon.config_tables import listing

# Of a batch no file is the one that these could stand for.
OF_ONE_FILE = frozenset({"path", "relpath", "name"})
PATHS = "{paths}"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = re.compile(r"TREEWARDEN_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|LISTEN_.*", re.DOTALL)
_SIZE = re.compile(r"([0-9]+)(B|[kKMGT]i?B)")
_POWERS = {"B": 1, **{unit: 1000**n for n, unit in enumerate(("kB", "MB", "GB", "TB"), 1)}}
_POWERS |= {unit: 1024**n for n, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), 1)}
_POWERS["KB"], _POWERS["kiB"] = 1000, 1024
_REJECTED = 65
_STATUSES = 255


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments; `{paths}` may be one of them, and stands for many."""
    read = listing(lambda part: PATHS if part == PATHS else _argument(part))(value)
    if not read or not read[0]:
        raise wrong(value, 'write a list: ["program", "argument", ...]', "found no program")
    if read[0] == PATHS:
        raise wrong(value, "write the program first", f"found {PATHS!r} in its place")
    if read.count(PATHS) > 1:
        raise wrong(value, "one is enough", f"found {PATHS!r} more than once")
    return read


def worker(value: object) -> tuple[str, ...]:
    """A program and its arguments, which are what they are."""
    read = listing(values.plain_argument)(value)
    if not read or not read[0]:
        raise wrong(value, 'write a list: ["program", "argument", ...]', "found no program")
    return read


def _argument(value: object) -> str:
    if isinstance(value, str) and PATHS in value.replace("{{", ""):
        found = f"found {PATHS!r} as a part of {show(value)}"
        raise wrong(value, f"let {PATHS!r} be an argument of its own: it becomes many", found)
    return values.argument(value)


def placeholders(argument: str) -> set[str]:
    """What in braces stands for something of the file's, in an argument that was read."""
    return set(re.findall(r"\{([a-z]+)\}", argument.replace("{{", "").replace("}}", "")))


def environment(value: object) -> dict[str, str]:
    """Variables by their names. None of those by which we, or systemd, speak to programs."""
    if not isinstance(value, dict):
        raise wrong(value, 'write a table: { LANG = "C.UTF-8" }')
    findings = [found for name, text in value.items() for found in _variable(name, text)]
    if findings:
        raise WrongValueError(findings)
    return dict(value)


def _variable(name: str, text: object) -> list[Finding]:
    if not _NAME.fullmatch(name):
        remedy = "use letters, digits and '_', and no digit first"
        return [Finding((name,), "found no name for a variable", remedy)]
    if _OURS.fullmatch(name):
        remedy = "use another name: this one is the daemon's, or systemd's"
        return [Finding((name,), "found a name that is taken", remedy)]
    if not isinstance(text, str) or "\0" in text:
        return wrong(text, "write a text in quotes, without a NUL").below(name)
    return []


def user(value: object) -> str:
    """The name of a user of this machine."""
    name = values.some_text(value)
    try:
        pwd.getpwnam(name)
    except (KeyError, ValueError):
        found = f"this machine knows no user {show(name)}"
        raise wrong(value, "create the user, or name another", found) from None
    return name


def size(value: object) -> int:
    """A number of bytes."""
    remedy = 'write a size such as "512MB", "2GiB" or "64kB", or bytes'
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong(value, remedy)
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, str) and not match:
        raise wrong(value, remedy)
    count = int(match[1]) * _POWERS[match[2]] if match else int(value)
    if not 0 < count < 1 << 62:
        raise wrong(value, remedy)
    return count


def statuses(value: object) -> tuple[int, ...]:
    """Exit statuses that are not success, nor the one that means never."""
    read = listing(values.whole(1, _STATUSES))(value)
    if _REJECTED in read:
        remedy = "leave it away: it says that the file is to be quarantined"
        raise wrong(value, remedy, f"found {_REJECTED}")
    return read


def output(value: object) -> str:
    """The log, or the path of a file, which `config_places` has made absolute."""
    remedy = 'write "log", or a path in quotes; allowed in it: {name}, {watch} and {step}'
    if value != "log" and not isinstance(value, Path):
        raise wrong(value, remedy)
    written = values.argument(str(value))
    if placeholders(written) & {"path", "relpath"}:
        raise wrong(written, remedy, f"found {show(written)}, which names a folder for each file")
    return written


class Limits(Struct, frozen=True, kw_only=True):
    """`limits` of a step: what each process of it may use, in seconds, bytes and descriptors."""

    cpu: Annotated[float | None, values.span] = None
    memory: Annotated[int | None, size] = None
    files: Annotated[int | None, values.whole(8, 1 << 30)] = None

    @property
    def given(self) -> bool:
        """Any of them is set."""
        return (self.cpu, self.memory, self.files) != (None, None, None)
