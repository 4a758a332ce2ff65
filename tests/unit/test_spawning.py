"""What a program is started with where there is no `Popen` to see to it."""

import ctypes
import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.handlers import spawning
from daemon.handlers.spawning import Spawner
from tests.unit import shortage

HIGH = 200


def test_descriptors_that_cannot_be_had() -> None:
    """Where the limit was put below an open descriptor, no program runs with ours in its place."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    high = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, HIGH)
    spawner = Spawner((), {})
    with shortage.of_descriptors(HIGH), pytest.raises(OSError, match="Too many") as caught:
        spawner.spawn([b"/bin/true"], {}, (null, null, high))
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, None)
    pid = spawner.spawn([b"/bin/true"], {}, (null, null, high))
    assert os.waitpid(pid, 0) == (pid, 0)
    os.close(high)
    os.close(null)


def test_variables() -> None:
    """Each program is told its own and what all are told; where both name one, its own counts."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    spawner = Spawner((), {b"ALL": b"all", b"BOTH": b"all"})
    told: list[dict[bytes, bytes]] = [
        {b"BOTH": b"1", b"OWN": b"1"},
        {b"BOTH": b"22", b"OWN": b""},
        {b"OWN": b"3"},
        {},
        {b"BOTH": b"4", b"OWN": b"4"},
    ]
    for own in told:
        ours, theirs = os.pipe()
        pid = spawner.spawn([b"/usr/bin/env"], own, (null, theirs, theirs))
        os.close(theirs)
        said = os.read(ours, 1_000).splitlines()
        os.close(ours)
        assert os.waitpid(pid, 0) == (pid, 0)
        everything = {b"ALL": b"all", b"BOTH": b"all"} | own
        assert sorted(said) == sorted(b"%b=%b" % each for each in everything.items())
    with pytest.raises(ValueError, match="null byte"):
        spawner.spawn([b"/bin/true"], {b"OWN": b"\0"}, (null, null, null))
    os.close(null)


def test_variables_of_two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that start the first programs of a step point both to strings that are kept."""
    both = threading.Barrier(2, timeout=30)
    strings = spawning._strings

    def together(texts: list[bytes]) -> object:
        both.wait()
        return strings(texts)

    spawner = Spawner((), {b"ALL": b"all"})
    monkeypatch.setattr(spawning, "_strings", together)
    with ThreadPoolExecutor(2) as threads:
        found = [threads.submit(spawner._environment, {b"OWN": b"1"}) for _ in range(2)]
    (kept,) = spawner._templates.values()
    # The second word of each is where the string is, of which it has no part itself.
    of_all = slice(ctypes.sizeof(ctypes.c_char_p), None)
    assert [bytes(each.result())[of_all] for each in found] == 2 * [bytes(kept)[of_all]]
