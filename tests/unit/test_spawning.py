"""What a program is started with where there is no `Popen` to see to it."""

import errno
import fcntl
import os

import pytest

from daemon.handlers.spawning import Spawner
from tests.unit import shortage

HIGH = 200


def test_descriptors_that_cannot_be_had() -> None:
    """Where the limit was put below an open descriptor, no program runs with ours in its place."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    high = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, HIGH)
    spawner = Spawner(())
    with shortage.of_descriptors(HIGH), pytest.raises(OSError, match="Too many") as caught:
        spawner.spawn([b"/bin/true"], {}, (null, null, high))
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, None)
    pid = spawner.spawn([b"/bin/true"], {}, (null, null, high))
    assert os.waitpid(pid, 0) == (pid, 0)
    os.close(high)
    os.close(null)
