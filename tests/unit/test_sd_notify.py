"""What systemd hears, on a real datagram socket."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import StoreUnavailable
from daemon.ops.systemd import Notifier, feed_watchdog

DEADLINE = 10.0


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The other end of $NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
        end.bind(str(tmp_path / "notify"))
        yield end


@pytest.fixture
def notifier(systemd: socket.socket) -> Iterator[Notifier]:
    with Notifier(environment(systemd)) as made:
        yield made


def environment(systemd: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.getsockname(), **more}


def heard(systemd: socket.socket) -> list[str]:
    """Every message that has arrived by now."""
    messages = []
    try:
        while True:
            messages.append(systemd.recv(65536).decode())
    except BlockingIOError:
        return messages


def fill(systemd: socket.socket) -> None:
    """Leave no room in the queue of `systemd`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
        other.connect(systemd.getsockname())
        with contextlib.suppress(BlockingIOError):
            while True:
                other.send(b"X=1")


def test_each_method_sends_its_own_message(systemd: socket.socket, notifier: Notifier) -> None:
    """READY, STATUS, EXTEND_TIMEOUT, WATCHDOG and STOPPING go out as sd_notify(3) spells them."""
    notifier.ready()
    notifier.status("3 files in flight")
    notifier.extend_timeout(2.5)
    notifier.watchdog()
    notifier.stopping()
    assert heard(systemd) == [
        "READY=1",
        "STATUS=3 files in flight",
        "EXTEND_TIMEOUT_USEC=2500000",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_status_is_one_line(systemd: socket.socket, notifier: Notifier) -> None:
    """A newline in a status, as a file name may hold, cannot smuggle in a second assignment."""
    notifier.status("loading a\nSTOPPING=1\r\nb\udcff")
    assert heard(systemd) == ["STATUS=loading a STOPPING=1 b?"]


def test_a_long_status_is_cut(systemd: socket.socket, notifier: Notifier) -> None:
    """A status never exceeds the 4,096 bytes that systemd accepts, whatever its characters."""
    notifier.status("\N{CARD INDEX}" * 100_000)
    (message,) = heard(systemd)
    assert 1_000 < len(message.encode()) < 4_096


def test_the_abstract_namespace() -> None:
    """An address that begins with "@" is one in the abstract namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.bind("")  # the kernel picks a free abstract name
        name = "@" + systemd.getsockname()[1:].decode()
        with Notifier({"NOTIFY_SOCKET": name}) as notifier:
            notifier.ready()
        assert heard(systemd) == ["READY=1"]


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative/path"])
def test_without_systemd_nothing_happens(address: str) -> None:
    """Without a usable $NOTIFY_SOCKET no socket is opened and every method is silent."""
    notifier = Notifier({"NOTIFY_SOCKET": address} if address else {})
    notifier.ready()
    notifier.status("nobody listens")
    notifier.close()
    assert notifier._socket is None


def test_a_socket_that_is_gone_is_no_error(systemd: socket.socket, notifier: Notifier) -> None:
    """A vanished socket raises nothing, and the next message to the new one brings what is owed."""
    address = systemd.getsockname()
    Path(address).unlink()
    notifier.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as successor:
        successor.bind(address)
        notifier.status("serving")
        assert heard(successor) == ["READY=1\nSTATUS=serving"]


def test_a_full_queue_neither_blocks_nor_loses_ready(
    systemd: socket.socket, notifier: Notifier
) -> None:
    """READY meets a full queue: the call returns, and READY goes out with the next message."""
    fill(systemd)
    notifier.ready()
    assert "READY=1" not in heard(systemd)
    notifier.watchdog()
    notifier.watchdog()
    assert heard(systemd) == ["READY=1\nWATCHDOG=1", "WATCHDOG=1"]


def test_a_late_feeding_is_dropped(systemd: socket.socket, notifier: Notifier) -> None:
    """A feeding that met a full queue is not repeated: it would prove what was, not what is."""
    fill(systemd)
    notifier.watchdog()
    heard(systemd)
    notifier.status("later")
    assert heard(systemd) == ["STATUS=later"]


def test_handlers_do_not_inherit_the_socket(notifier: Notifier) -> None:
    """The descriptor is closed on exec."""
    assert notifier._socket is not None
    assert not os.get_inheritable(notifier._socket.fileno())


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    """The interval is half of what systemd allows; None if it means another process, or nobody."""
    assert Notifier(environ).watchdog_interval == seconds


async def message(systemd: socket.socket) -> str:
    async with asyncio.timeout(DEADLINE):
        return (await asyncio.get_running_loop().sock_recv(systemd, 4096)).decode()


async def test_the_watchdog_is_fed_again_and_again(systemd: socket.socket) -> None:
    """While the proof succeeds, one feeding follows the other, and cancelling ends it."""

    async def proof() -> None:
        await asyncio.sleep(0)

    with Notifier(environment(systemd, WATCHDOG_USEC="20000")) as notifier:
        feeding = asyncio.create_task(feed_watchdog(notifier, proof))
        assert [await message(systemd) for _ in range(3)] == ["WATCHDOG=1"] * 3
        feeding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await feeding


async def test_a_hung_database_is_not_fed_for(systemd: socket.socket) -> None:
    """A proof that hangs is given up after one interval and feeds nothing; the next one does."""
    asked: list[str] = []

    async def proof() -> None:
        asked.append("fed" if heard(systemd) else "not fed")
        if len(asked) == 1:
            await asyncio.Event().wait()

    with Notifier(environment(systemd, WATCHDOG_USEC="20000")) as notifier:
        feeding = asyncio.create_task(feed_watchdog(notifier, proof))
        assert await message(systemd) == "WATCHDOG=1"
        assert asked[:2] == ["not fed", "not fed"]
        feeding.cancel()
        await asyncio.wait([feeding])


async def test_a_refusing_database_is_fed_for(systemd: socket.socket) -> None:
    """A database that answers "not now" is not a hang: a restart would not mend a full disk."""

    async def proof() -> None:
        raise StoreUnavailable("the disk is full")

    with Notifier(environment(systemd, WATCHDOG_USEC="20000")) as notifier:
        feeding = asyncio.create_task(feed_watchdog(notifier, proof))
        assert await message(systemd) == "WATCHDOG=1"
        feeding.cancel()
        await asyncio.wait([feeding])


async def test_a_broken_proof_is_not_hidden(systemd: socket.socket) -> None:
    """Any other error of the proof ends the feeding with that error."""

    async def proof() -> None:
        raise KeyError("a defect")

    notifier = Notifier(environment(systemd, WATCHDOG_USEC="20000"))
    with notifier, pytest.raises(KeyError, match="a defect"):
        await feed_watchdog(notifier, proof)
    assert heard(systemd) == []


async def test_without_a_watchdog_nobody_is_asked() -> None:
    """Where systemd expects no feeding, the task returns at once and the proof is never called."""
    asked: list[int] = []

    async def proof() -> None:
        asked.append(1)

    async with asyncio.timeout(DEADLINE):
        await feed_watchdog(Notifier({}), proof)
    assert asked == []
