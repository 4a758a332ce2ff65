"""Where the lines go: whole, in order, whatever the descriptor is like."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from daemon.engine.output import Output
from tests.engine.conftest import DEADLINE
from tests.unit import shortage


def read_all(fd: int) -> bytes:
    with open(fd, "rb") as pipe:
        return pipe.read()


async def test_appends_in_order(tmp_path: Path) -> None:
    """Chunks are appended to the file in the order of the calls, from many callers."""
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    output = Output.to(str(log))
    await asyncio.gather(*[output.write(b"%d\n" % number) for number in range(100)])
    await output.close()
    assert log.read_bytes() == b"before\n" + b"".join(b"%d\n" % n for n in range(100))


async def test_torn_line_of_a_former_run_is_ended(tmp_path: Path) -> None:
    """A file whose last line broke off gets a newline before anything else."""
    log = tmp_path / "log"
    log.write_bytes(b'{"torn')
    output = Output.to(str(log))
    await output.write(b"{}\n")
    await output.close()
    assert log.read_bytes() == b'{"torn\n{}\n'


async def test_torn_write_is_ended(tmp_path: Path) -> None:
    """After a write that broke off, the chunk is written whole, from the start of a line."""
    log = tmp_path / "log"
    output = Output.to(str(log))
    await output.write(b"one\n")
    with shortage.of_room(7):
        with pytest.raises(OSError, match="File too large"):
            await output.write(b"two two\n")
        with pytest.raises(OSError, match="File too large"):
            await output.write(b"two two\n")
    await output.write(b"two two\n")
    await output.write(b"three\n")
    await output.close()
    assert log.read_bytes() == b"one\ntwo\ntwo two\nthree\n"


async def test_broken_at_the_end_of_a_line(tmp_path: Path) -> None:
    """A write that breaks off between two lines needs no newline."""
    log = tmp_path / "log"
    output = Output.to(str(log))
    with shortage.of_room(4), pytest.raises(OSError, match="File too large"):
        await output.write(b"one\ntwo\n")
    await output.write(b"one\ntwo\n")
    await output.close()
    assert log.read_bytes() == b"one\none\ntwo\n"


async def test_stalled_reader_does_not_block_the_loop() -> None:
    """While nobody reads a full pipe the loop goes on; once somebody does, all of it arrives."""
    reader, writer = os.pipe()
    output = Output(writer, owned=True)
    chunk = b"x" * 299_999 + b"\n"
    writing = asyncio.create_task(output.write(chunk))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not writing.done()
    reading = asyncio.create_task(asyncio.to_thread(read_all, reader))
    await asyncio.wait_for(writing, DEADLINE)
    await output.close()
    assert await reading == chunk


async def test_descriptor_that_does_not_block() -> None:
    """A pipe that another process made non-blocking gets each byte once, as soon as it takes it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    output = Output(writer, owned=True)
    chunk = b"".join(b"%d\n" % number for number in range(100_000))
    writing = asyncio.create_task(output.write(chunk))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert not writing.done()
    reading = asyncio.create_task(asyncio.to_thread(read_all, reader))
    await asyncio.wait_for(writing, DEADLINE)
    await output.close()
    assert await reading == chunk


async def test_closed_pipe() -> None:
    """A pipe without a reader is an error of the call, not of the process."""
    reader, writer = os.pipe()
    os.close(reader)
    output = Output(writer, owned=True)
    with pytest.raises(BrokenPipeError):
        await output.write(b"x\n")
    await output.close()


async def test_cancelled_writer() -> None:
    """Who is cancelled while waiting for the kernel disturbs nobody who writes later."""
    reader, writer = os.pipe()
    output = Output(writer, owned=True)
    first = asyncio.create_task(output.write(b"x" * 300_000 + b"\n"))
    await asyncio.sleep(0)
    first.cancel()
    reading = asyncio.create_task(asyncio.to_thread(read_all, reader))
    await asyncio.wait_for(output.write(b"end\n"), DEADLINE)
    await output.close()
    assert (await reading).endswith(b"x\nend\n")


async def test_close(tmp_path: Path) -> None:
    """`close` ends the thread and closes a descriptor of its own, and only such a one."""
    before = threading.active_count()
    output = Output.to(str(tmp_path / "log"))
    await output.write(b"x\n")
    fd = output._fd
    await output.close()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(fd)
    reader, writer = os.pipe()
    lent = Output(writer)
    await lent.close()
    os.fstat(writer)
    os.close(reader)
    os.close(writer)
    assert "journal" not in [thread.name for thread in threading.enumerate()]
    assert threading.active_count() <= before + 1  # the loop's own pool


def test_not_to_be_opened(tmp_path: Path) -> None:
    """A log that cannot be opened is an error at once."""
    with pytest.raises(IsADirectoryError):
        Output.to(str(tmp_path))
