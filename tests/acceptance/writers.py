"""Programs that write files the way programs do, at a pace of their own, and how tests run them.

`python writers.py NAME PATH [ARGUMENT]...` runs one. A writer that waits for its test says on
standard output where it stands, and goes on when it gets a line.
"""

import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random

LONG_AGO = 1_000_000_000  # 2001
CHUNK = 64 * 1024
CHUNKS = 8


def chunks() -> Iterator[bytes]:
    """What the writers write: no part of it is like another, and none is zeros."""
    source = Random(7)  # noqa: S311 - the same bytes each time, not a secret
    return (source.randbytes(CHUNK) for _ in range(CHUNKS))


def wait(said: str) -> None:
    """Tell the test, and wait for it."""
    print(said, flush=True)  # noqa: T201 - the way back to the test
    sys.stdin.readline()


def append_in_one_go(path: Path, lines: str, pause: str) -> None:
    """A log: open all the time, a line now and then."""
    with path.open("a", buffering=1) as file:
        for number in range(int(lines)):
            file.write(f"line {number}\n")
            time.sleep(float(pause))


def append_and_close(path: Path, lines: str, pause: str) -> None:
    """A shell's `>>`: opened anew for each line."""
    for number in range(int(lines)):
        with path.open("a") as file:
            file.write(f"line {number}\n")
        time.sleep(float(pause))


def write_twice(path: Path, pause: str) -> None:
    """Written, closed, and after a while opened again for the rest."""
    first, second = b"".join(chunks()), b"and the rest"
    path.write_bytes(first)
    time.sleep(float(pause))
    with path.open("ab") as file:
        file.write(second)


def fill_what_was_allocated(path: Path, pause: str) -> None:
    """A download: as large as it will be from the start, and full of zeros at first."""
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, CHUNK * CHUNKS)
        for chunk in chunks():
            time.sleep(float(pause))
            file.write(chunk)


def keep_an_old_time(path: Path, pause: str) -> None:
    """An unpacker: the time of the original is set before the file is closed, and again after."""
    with path.open("wb", buffering=0) as file:
        for chunk in chunks():
            file.write(chunk)
            os.utime(file.fileno(), (LONG_AGO, LONG_AGO))
            time.sleep(float(pause))
    os.utime(path, (LONG_AGO, LONG_AGO))


def write_beside_and_rename(path: Path, pause: str) -> None:
    """What rsync does: a temporary name with a dot, mode and time, then the real name."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 - a descriptor
        for chunk in chunks():
            file.write(chunk)
            time.sleep(float(pause))
    os.utime(temporary, (LONG_AGO, LONG_AGO))
    Path(temporary).chmod(0o644)
    Path(temporary).rename(path)


def write_through_a_map(path: Path) -> None:
    """A database: the descriptor is closed long before the last write, which no call tells of."""
    size = CHUNK * CHUNKS
    # Not Python's own mmap: it keeps a descriptor on the file as long as the map.
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with path.open("w+b") as file:
        file.truncate(size)
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        memory = libc.mmap(None, size, protection, mmap.MAP_SHARED, file.fileno(), 0)
    wait("closed")
    for number, chunk in enumerate(chunks()):
        ctypes.memmove(memory + number * CHUNK, chunk, CHUNK)
    wait("written")
    libc.munmap(memory, size)
    wait("unmapped")


def never_close(path: Path) -> None:
    """A process that keeps a file open until it ends."""
    with path.open("wb", buffering=0) as file:
        file.write(b"half")
        wait("written")
        file.write(b" and whole")
        wait("whole")


WRITERS: dict[str, Callable[..., None]] = {
    function.__name__: function
    for function in (
        append_in_one_go,
        append_and_close,
        write_twice,
        fill_what_was_allocated,
        keep_an_old_time,
        write_beside_and_rename,
        write_through_a_map,
        never_close,
    )
}


class Writer:
    """A writer that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._said, self._told = process.stdout, process.stdin

    def await_word(self, word: str) -> None:
        """Wait until it says that it has come so far."""
        assert self._said.readline() == f"{word}\n"

    def go_on(self) -> None:
        """Let it go on from where it waits."""
        self._told.write("\n")
        self._told.flush()

    def end(self) -> None:
        """Wait until it has ended well."""
        assert self._process.wait() == 0


@contextmanager
def writer(function: Callable[..., None], path: Path, *arguments: object) -> Iterator[Writer]:
    """Run one; it is ended with the block, if it has not ended before."""
    argv = [sys.executable, __file__, function.__name__, str(path), *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


def write(function: Callable[..., None], path: Path, *arguments: object) -> None:
    """Run one to its end."""
    with writer(function, path, *arguments) as process:
        process.end()


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
