"""Digests: of the file that was seen or of none, beside the loop, and at an end when it ends."""

import asyncio
import errno
import hashlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from daemon.core.manifest import ALGORITHMS, Manifests, Member
from daemon.core.model import Fingerprint
from daemon.engine.digests import LARGE, Digests
from daemon.engine.disk import fingerprint
from daemon.engine.reading import feed, new_hash
from tests.engine.conftest import DEADLINE
from tests.unit import shortage

pytestmark = pytest.mark.timeout(2 * DEADLINE)
HUGE = 2**40
CHUNK = 2**20


@pytest.fixture
async def digests() -> AsyncIterator[Digests]:
    """Digests that leave no thread behind."""
    made = Digests()
    yield made
    await made.close()
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("digest")]


def seen_at(path: Path) -> Fingerprint:
    return fingerprint(path.lstat())


def sparse(path: Path, size: int) -> Path:
    """A file of so many zeros that take no room."""
    path.touch()
    os.truncate(path, size)
    return path


def descriptors() -> list[str]:
    """What this process has open; a link is gone when it closes one meanwhile."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return found


async def is_read(path: Path) -> None:
    """Wait until a thread has the file open."""
    async with asyncio.timeout(DEADLINE):
        while str(path) not in descriptors():  # noqa: ASYNC110 - nobody is told of an open
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", [b"a\nb", b"\xff", b"x" * 255])
@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 1])
async def test_content(digests: Digests, tmp_path: Path, size: int, name: bytes) -> None:
    """The identity of a content is its BLAKE2b of 128 bits, whatever the file is called."""
    path, content = tmp_path / os.fsdecode(name), os.urandom(size)
    path.write_bytes(content)
    expected = "blake2b:" + hashlib.blake2b(content, digest_size=16).hexdigest()
    assert await digests.of(bytes(path), seen_at(path)) == expected


async def test_only_content_counts(digests: Digests, tmp_path: Path) -> None:
    """A copy with another inode, mode and mtime has the same identity."""
    (tmp_path / "a").write_bytes(b"content")
    shutil.copy(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b").chmod(0o600)
    os.utime(tmp_path / "b", (1, 1))
    first, second = tmp_path / "a", tmp_path / "b"
    same = await digests.of(bytes(first), seen_at(first))
    assert await digests.of(bytes(second), seen_at(second)) == same


def rewrite(path: Path) -> None:
    path.write_bytes(b"other content")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").rename(path)


def turn_into_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def turn_into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def turn_into_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def turn_into_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


ANOTHER: list[Callable[[Path], None]] = [
    rewrite,
    replace,
    Path.unlink,
    turn_into_link,
    turn_into_folder,
    turn_into_fifo,
    turn_into_socket,
]


@pytest.mark.parametrize("change", ANOTHER)
async def test_changed_before(
    digests: Digests, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    """What is not the file that was seen has no digest, and nothing is waited for."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, (1, 1))
    seen = seen_at(path)
    change(path)
    assert await digests.of(bytes(path), seen) is None
    assert await digests.content(bytes(path), seen, 100) is None


async def test_folder_that_is_gone(digests: Digests, tmp_path: Path) -> None:
    """A path that leads through a file leads nowhere."""
    (tmp_path / "file").write_bytes(b"x")
    assert await digests.of(bytes(tmp_path / "file/a"), seen_at(tmp_path / "file")) is None


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def cut(path: Path) -> None:
    os.truncate(path, 1)


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


@pytest.mark.parametrize("change", [append, cut, overwrite])
@pytest.mark.parametrize("size", [CHUNK, 3 * CHUNK])
def test_changed_meanwhile(tmp_path: Path, change: Callable[[Path], None], size: int) -> None:
    """A file that changes while it is being read is not the one that was seen."""
    path = sparse(tmp_path / "file", size)
    # Long ago, so that a change in the tick of the kernel's clock in which it was made shows.
    os.utime(path, (1, 1))
    taken: list[int] = []

    def take(chunk: bytes) -> None:
        if not taken:
            change(path)
        taken.append(len(chunk))

    assert not feed(bytes(path), seen_at(path), take, lambda: True)
    assert sum(taken) <= size


async def test_file_that_is_refused(digests: Digests, tmp_path: Path) -> None:
    """What the kernel refuses to open is an error of that file alone."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        await digests.of(bytes(tmp_path) + b"/" + b"x" * 256, seen_at(path))
    assert await digests.of(bytes(path), seen_at(path)) is not None


async def test_out_of_descriptors(digests: Digests, tmp_path: Path) -> None:
    """A shortage of descriptors is an error, not a file that is another."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    seen = seen_at(path)
    with shortage.of_descriptors(), pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        await digests.of(bytes(path), seen)


async def test_nothing_is_left_open(digests: Digests, tmp_path: Path) -> None:
    """Whether there is a digest or not, no descriptor is left."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    seen = seen_at(path)
    for _ in range(100):
        await digests.of(bytes(path), seen)
        await digests.of(bytes(path), seen._replace(size=2))
    assert str(path) not in descriptors()


async def test_large_file_holds_up_no_small_one(digests: Digests, tmp_path: Path) -> None:
    """While a file of a tebibyte is being read, small ones are done; the end cuts it short."""
    huge = sparse(tmp_path / "huge", HUGE)
    small = sparse(tmp_path / "small", LARGE)
    reading = asyncio.create_task(digests.of(bytes(huge), seen_at(huge)))
    await is_read(huge)
    assert await digests.of(bytes(small), seen_at(small)) is not None
    assert not reading.done()
    await digests.close()
    assert threads() == []
    assert await reading is None


async def test_waiting_at_the_end(digests: Digests, tmp_path: Path) -> None:
    """What still waits at the end is not begun, and nothing is begun after it."""
    huge = sparse(tmp_path / "huge", HUGE)
    waiting = [asyncio.create_task(digests.of(bytes(huge), seen_at(huge))) for _ in range(3)]
    await is_read(huge)
    await digests.close()
    assert await asyncio.gather(*waiting) == [None] * 3
    small = sparse(tmp_path / "small", 1)
    assert await digests.of(bytes(small), seen_at(small)) is None
    assert await digests.content(bytes(small), seen_at(small), 1) is None
    assert threads() == []


async def test_cancelled_while_read(digests: Digests, tmp_path: Path) -> None:
    """A file that nobody waits for any more is left alone, and the next one has its turn."""
    huge, next_one = sparse(tmp_path / "huge", HUGE), sparse(tmp_path / "next", LARGE + 1)
    reading = asyncio.create_task(digests.of(bytes(huge), seen_at(huge)))
    waiting = asyncio.create_task(digests.of(bytes(huge), seen_at(huge)))
    await is_read(huge)
    for task in (reading, waiting):
        task.cancel()
    await asyncio.wait([reading, waiting])
    assert await digests.of(bytes(next_one), seen_at(next_one)) is not None
    assert str(huge) not in descriptors()


def test_unwanted_from_the_start(tmp_path: Path) -> None:
    """What nobody waits for is not even opened."""
    seen = seen_at(sparse(tmp_path / "file", 1))
    unopenable = bytes(tmp_path) + b"/" + b"x" * 256
    assert not feed(unopenable, seen, print, lambda: False)


async def test_beginning(digests: Digests, tmp_path: Path) -> None:
    """Of a small file all bytes are read, of a larger one as many as are asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert await digests.content(bytes(path), seen_at(path), 100) == b"0123456789"
    assert await digests.content(bytes(path), seen_at(path), 4) == b"0123"
    huge = sparse(tmp_path / "huge", HUGE)
    assert await digests.content(bytes(huge), seen_at(huge), 2 * CHUNK) == b"\0" * (2 * CHUNK)


def sums(folder: Path, program: str, options: list[str]) -> tuple[Member, ...]:
    """What a program of coreutils prints about all files in a folder, read as a manifest."""
    command = [program, *options, "--", *[path.name for path in folder.iterdir()]]
    ran = subprocess.run(command, cwd=folder, capture_output=True, check=True, timeout=DEADLINE)
    members = Manifests("SUMS").read(b"SUMS", ran.stdout)
    assert isinstance(members, tuple)
    return members


SUMS = ["md5sum", "sha1sum", "sha224sum", "sha256sum", "sha384sum", "sha512sum", "b2sum"]
NAMES = [b"a b", b"a\nb", b"a\\b\rc", b"\xff", b"#1", b"(a) = b", b"*", b" x", b"y" * 255]


@pytest.mark.parametrize("options", [[], ["-b"], ["--tag"]])
@pytest.mark.parametrize("program", SUMS)
async def test_sums(digests: Digests, tmp_path: Path, program: str, options: list[str]) -> None:
    """Whatever the sums of coreutils print is a manifest whose checksums hold."""
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"content of " + name)
    members = sums(tmp_path, program, options)
    assert sorted(member.path for member in members) == sorted(NAMES)
    for member in members:
        path, checksum = tmp_path / os.fsdecode(member.path), member.checksum
        assert checksum is not None
        found = [await digests.of(bytes(path), seen_at(path), by) for by in checksum.algorithms]
        assert checksum.digest in found


async def test_tagged_length(digests: Digests, tmp_path: Path) -> None:
    """A BLAKE2b of any length is computed as its tag says."""
    (tmp_path / "file").write_bytes(b"content")
    (member,) = sums(tmp_path, "b2sum", ["--tag", "-l", "256"])
    assert member.checksum is not None
    (algorithm,) = member.checksum.algorithms
    path = tmp_path / "file"
    assert await digests.of(bytes(path), seen_at(path), algorithm) == member.checksum.digest


@pytest.mark.parametrize(("algorithm", "digits"), ALGORITHMS.items())
def test_known_algorithm(algorithm: str, digits: int) -> None:
    """Every algorithm that a manifest can name is computed, and has as many digits as it says."""
    assert len(new_hash(algorithm).hexdigest()) == digits


@pytest.mark.parametrize("algorithm", ["", "crc32", "shake_128", "blake2b-1024", "blake2b-7"])
def test_unknown_algorithm(algorithm: str) -> None:
    """An algorithm that no manifest can name is refused at once."""
    with pytest.raises(ValueError, match="no checksum is called"):
        new_hash(algorithm)
