"""The daemon's line to systemd: readiness, status and the watchdog, after sd_notify(3)."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

from daemon.errors import StoreError

_STATUS_LENGTH = 500  # characters: systemd ignores a message of more than 4,096 bytes


class Notifier:
    """Tells systemd how the daemon is doing; without systemd every method does nothing.

    Never raises and never blocks. The socket is opened once, so that a shortage of descriptors
    cannot keep the watchdog from being fed.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._socket = _open() if self._address else None
        self._owed: dict[str, str] = {}
        self.watchdog_interval = _interval(environ)
        """Seconds between two feedings, half of what systemd allows; None where it expects none."""

    def ready(self) -> None:
        """Say that the start is complete."""
        self._send("READY", "1")

    def status(self, text: str) -> None:
        """Say in one line what the daemon is about, for `systemctl status`."""
        self._send("STATUS", " ".join(text.splitlines())[:_STATUS_LENGTH])

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING", "1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for so much more time, from now, to start or to stop."""
        self._send("EXTEND_TIMEOUT_USEC", str(round(seconds * 1_000_000)))

    def watchdog(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG", "1")

    def close(self) -> None:
        """Give the socket back; what is said afterwards goes nowhere."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, field: str, value: str) -> None:
        if self._socket is None:
            return
        self._owed[field] = value
        message = "\n".join(f"{name}={said}" for name, said in self._owed.items())
        try:
            self._socket.sendto(message.encode(errors="replace"), self._address)
        except OSError:
            # systemd is busy (its queue is full) or restarting (its socket is gone), and neither is
            # worth a stop or a wait. What was said stays owed and goes out with the next message,
            # so that a lost READY does not end in a start timeout; a late feeding is worth nothing.
            self._owed.pop("WATCHDOG", None)
        else:
            self._owed.clear()


async def feed_watchdog(notifier: Notifier, proof: Callable[[], Awaitable[object]]) -> None:
    """Feed the watchdog as long as `proof` succeeds in time; until cancelled.

    `proof` asks the database something. Without an answer within the interval it is cancelled and
    asked anew: should the hang pass before systemd loses patience, nothing is restarted.
    """
    if (interval := notifier.watchdog_interval) is None:
        return
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        if await _answers(proof, interval):
            notifier.watchdog()
        await asyncio.sleep(due - loop.time())


async def _answers(proof: Callable[[], Awaitable[object]], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await proof()
    except TimeoutError:
        return False
    except StoreError:
        # A refusal is an answer: a full disk or a lock is waited out, and a restart mends neither.
        return True
    return True


def _open() -> socket.socket | None:
    try:
        return socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        )
    except OSError:
        return None  # Not even one descriptor: the daemon meets that shortage again, and says so.


def _address(name: str) -> str:
    """Translate $NOTIFY_SOCKET: a path, or "@" for the abstract namespace; empty if neither."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else ""


def _interval(environ: Mapping[str, str]) -> float | None:
    """Read half of $WATCHDOG_USEC in seconds, unless $WATCHDOG_PID names another process."""
    usec = environ.get("WATCHDOG_USEC", "")
    meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not usec.isdecimal() or int(usec) == 0 or meant_for != str(os.getpid()):
        return None
    return int(usec) / 2_000_000
