"""Where the configuration, the state folder and the runtime folder are.

The commands that only read (`status`, `ls`, `show`) need no more of the configuration than this: it
may be wrong elsewhere, and they answer all the same.
"""

import os
import re
import threading
import time
import tomllib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PosixPath
from typing import Any

from daemon.errors import ConfigError, Problem

DEFAULT_CONFIG = Path("/etc/treewarden/config.toml")
FOLDER = "write the path of a folder in quotes"
SYNTAX = "correct the syntax"
_AGAIN = re.compile("Cannot (?:overwrite|declare|redefine|mutate|update)", re.IGNORECASE)


def find_config(option: str | None) -> Path:
    """The configuration file: `--config`, else `$TREEWARDEN_CONFIG`, else the system's."""
    return Path(option or os.environ.get("TREEWARDEN_CONFIG") or DEFAULT_CONFIG)


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables, unchecked. Raises `ConfigError` where it cannot be read as TOML."""
    return parse(read_text(path), path)


def read_text(path: Path) -> str:
    """The file's text. Raises `ConfigError` where it cannot be read, or is not UTF-8."""
    try:
        # Some editors begin with a byte order mark.
        return path.read_bytes().removeprefix(BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _error(path, line, "the text is not UTF-8", "save it as UTF-8") from error
    except OSError as error:
        found = f"cannot be read: {error.strerror}"
        remedy = "name a readable file with --config or $TREEWARDEN_CONFIG"
        raise _error(path, None, found, remedy) from error


def parse(text: str, path: Path) -> dict[str, Any]:
    """The tables in a text that came from `path`. Raises `ConfigError` at a syntax error."""
    try:
        return tomllib.loads(text)
    # tomllib lets a number of 5,000 digits through as ValueError, deep nesting as RecursionError.
    except (ValueError, RecursionError) as error:
        found = f"not TOML: {error}"
        again = _AGAIN.search(found)
        remedy = "write it once, and [[watch.step]] below its [[watch]]" if again else SYNTAX
        raise _error(path, _line(str(error), text), found, remedy) from error


# So long a file system has to tell where a path leads.
ANSWER_SECONDS = 2.0
DATABASE = "treewarden.db"
LOCK = "treewarden.lock"


def state_dir(raw: dict[str, Any], config_file: Path) -> Path:
    """The folder of the database: absolute, without symbolic links, perhaps not there yet."""
    if configured := _configured(raw, "state_dir", config_file):
        return configured
    try:
        return Path(os.path.realpath(_default_state()))
    except RuntimeError as error:  # a user without $HOME and without an entry in the passwd file
        found = "there is no home folder for the state"
        raise _error(config_file, None, found, FOLDER, "daemon.state_dir") from error


def runtime_dir(raw: dict[str, Any], config_file: Path) -> Path:
    """The folder reserved for sockets, found like the state folder, and by default inside it."""
    return given_runtime_dir(raw, config_file) or state_dir(raw, config_file) / "run"


def given_runtime_dir(raw: dict[str, Any], config_file: Path) -> Path | None:
    """The runtime folder that the configuration or the environment names."""
    given = _configured(raw, "runtime_dir", config_file) or _default_runtime()
    return given and Path(os.path.realpath(given))


def _configured(raw: dict[str, Any], key: str, config_file: Path) -> Path | None:
    table = raw.get("daemon", {})
    if not isinstance(table, dict):
        raise _error(config_file, None, "found no table", "write a table: [daemon]", "daemon")
    if key not in table:
        return None
    if path := placed(table[key], config_file):
        return path
    raise _error(config_file, None, f"found {table[key]!r}", FOLDER, f"daemon.{key}")


def placed(value: object, config_file: Path) -> Path | None:
    """A path that is relative to the file's folder, without symbolic links, if it can be one."""
    if isinstance(value, Path):  # it was placed before
        return value
    path = written(value, config_file)
    return path and Path(os.path.realpath(path))


def written(value: object, config_file: Path) -> Path | None:
    """The same with its links: the disk is not asked."""
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    return config_file.absolute().parent / value


class Unanswered(PosixPath):
    """A path on a file system that hangs: its links, and what is there, are not known."""


def resolved(paths: Sequence[Path]) -> list[Path]:
    """Each without symbolic links; one whose file system hangs is `Unanswered`, and as written.

    One thread asks for all. Where it hangs, the others have one each: four seconds at most.
    """
    found: list[Path] = [Unanswered(os.path.abspath(path)) for path in paths]  # noqa: PTH100 - as written
    asked = [*found]

    def ask(numbers: Iterable[int]) -> None:
        for number in numbers:
            found[number] = Path(os.path.realpath(paths[number]))

    try:
        within(ANSWER_SECONDS, partial(ask, range(len(paths))))
    except TimeoutError:
        left = [number for number, path in enumerate(asked) if found[number] is path]
        threads = [_begun(partial(ask, (number,))) for number in left[1:]]
        until = time.monotonic() + ANSWER_SECONDS
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0.0))
    return found[:]


def within(seconds: float, call: Callable[[], None]) -> None:
    """Call what asks a file system, which may hang: then its thread is left behind.

    Raises:
        TimeoutError: it has not returned in time.
    """
    thread = _begun(call)
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError


def _begun(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def _default_state() -> Path:
    if given := _environment("STATE_DIRECTORY"):
        return given
    if os.geteuid() == 0:
        return Path("/var/lib/treewarden")
    home = _environment("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return home / "treewarden"


def _default_runtime() -> Path | None:
    if given := _environment("RUNTIME_DIRECTORY"):
        return given
    if os.geteuid() == 0:
        return Path("/run/treewarden")
    session = _environment("XDG_RUNTIME_DIR")
    return session and session / "treewarden"


def _environment(name: str) -> Path | None:
    """The first of a list of folders; XDG says that a relative one is to be ignored."""
    first = Path(os.environ.get(name, "").partition(":")[0])
    return first if first.is_absolute() else None


def _line(message: str, text: str) -> int | None:
    if at := re.search(r"at line (\d+)", message):
        return int(at[1])
    return text.count("\n") + 1 if "at end of document" in message else None


def _error(file: Path, line: int | None, found: str, remedy: str, key: str = "") -> ConfigError:
    return ConfigError([Problem(str(file), line, key, found, remedy)])
