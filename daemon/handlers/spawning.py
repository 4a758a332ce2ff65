"""posix_spawn(3), for threads: Python's own holds the interpreter lock until the program is loaded.

That takes half a millisecond on a busy machine, and as long as its disk hangs on an unlucky one.
Whoever gives the lock away has to wait to get it back, so here that happens once a start; and what
all programs of a step are told is made into C strings once: that alone is 0.05 ms less for each.
"""

import ctypes
import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# <spawn.h>, the same in glibc and musl.
_SETSIGDEF, _SETSID = 0x04, 0x80
# More than any libc needs: glibc's largest, the attributes, have 336 bytes.
_ROOM = 1024
# Of what new processes do first with their descriptors, which are the same again and again: the
# lowest numbers are given out first.
_KEPT = 256


class Spawner:
    """Starts programs as leaders of sessions of their own, `signals` as they are by default.

    `inherited` are the variables that all of them have.

    Raises:
        NotImplementedError: this libc does not know how.
    """

    def __init__(self, signals: Iterable[int], inherited: Mapping[bytes, bytes]) -> None:
        self._libc = _libc()
        # The same library, called without giving the interpreter lock away.
        self._quick = ctypes.PyDLL(None)
        self._inherited = dict(inherited)
        self._templates: dict[tuple[bytes, ...], ctypes.Array[ctypes.c_char_p]] = {}
        self._actions: dict[tuple[int, ...], Any] = {}
        self._attributes = ctypes.create_string_buffer(_ROOM)
        defaults = ctypes.create_string_buffer(_ROOM)
        self._libc.sigemptyset(defaults)
        for number in signals:
            self._libc.sigaddset(defaults, int(number))
        self._libc.posix_spawnattr_init(self._attributes)
        self._libc.posix_spawnattr_setsigdefault(self._attributes, defaults)
        flags = ctypes.c_short(_SETSIGDEF | _SETSID)
        if self._libc.posix_spawnattr_setflags(self._attributes, flags):
            raise NotImplementedError("posix_spawn without POSIX_SPAWN_SETSID")

    def spawn(
        self, argv: list[bytes], variables: Mapping[bytes, bytes], streams: Sequence[int]
    ) -> int:
        """The id of a process that has become the program; `streams` are its descriptors 0 to 2.

        `variables` are its own, and go before those of all.

        Raises:
            OSError: why there is none; `filename` is the program, if it was tried.
            ValueError: a NUL byte in an argument or a variable.
        """
        arguments, environment = _strings(argv), self._environment(variables)
        fds = tuple(streams)
        actions, pid = self._actions.get(fds) or self._actions_for(fds), ctypes.c_int()
        error = self._libc.posix_spawnp(
            ctypes.byref(pid), argv[0], actions, self._attributes, arguments, environment
        )
        if fds not in self._actions:
            self._quick.posix_spawn_file_actions_destroy(actions)
        if error:
            raise OSError(error, os.strerror(error), argv[0])
        return pid.value

    def _actions_for(self, fds: tuple[int, ...]) -> Any:  # noqa: ANN401 - as below
        """What the new process does first. Once it is kept it is but read, in any thread."""
        actions = ctypes.create_string_buffer(_ROOM)
        self._quick.posix_spawn_file_actions_init(actions)
        for number, fd in enumerate(fds):
            if error := self._quick.posix_spawn_file_actions_adddup2(actions, fd, number):
                self._quick.posix_spawn_file_actions_destroy(actions)
                # A limit that was lowered meanwhile, below what is open already.
                error = errno.EMFILE if error == errno.EBADF else error
                raise OSError(error, os.strerror(error))
        if len(self._actions) < _KEPT:
            self._actions[fds] = actions
        return actions

    def _environment(self, variables: Mapping[bytes, bytes]) -> "ctypes.Array[ctypes.c_char_p]":
        names = tuple(variables)
        template = self._templates.get(names)
        if template is None:
            others = {k: v for k, v in self._inherited.items() if k not in variables}
            texts = [b""] * len(names) + _assignments(others)
            # One step: of two threads that come this far the second takes what the first has kept.
            template = self._templates.setdefault(names, _strings(texts))
        # What it points to are the strings of the template, which is kept, and they with it.
        environment = type(template).from_buffer_copy(template)
        own = _without_nul(_assignments(variables))
        environment[: len(own)] = [*own]
        return environment


def _libc() -> Any:  # noqa: ANN401 - ctypes knows no types of functions
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "posix_spawnattr_setflags"):
        raise NotImplementedError("no posix_spawn")
    return libc


def _strings(texts: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    """A vector of C strings, ended by NULL."""
    return (ctypes.c_char_p * (len(texts) + 1))(*_without_nul(texts))


def _assignments(variables: Mapping[bytes, bytes]) -> list[bytes]:
    return [b"%b=%b" % each for each in variables.items()]


def _without_nul(texts: list[bytes]) -> list[bytes]:
    if b"\0" in b"".join(texts):
        raise ValueError("embedded null byte")
    return texts
