"""A small HTTP server for whoever asks how the daemon is doing. It knows nobody and trusts nobody.

Imported only where it is configured: aiohttp takes 13 MB and 0.1 s.
"""

import asyncio
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from daemon.config_address import Address, UnixAddress
from daemon.errors import ServiceError

Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]

# Descriptors are for the work. So there are no more connections than this, and each ends after so
# many seconds, whether its client is slow to ask or slow to take the answer.
CONNECTIONS = 64
CONNECTION_SECONDS = 15.0
LONGEST_LINE = 4_096
# What answers that are on their way get at the end.
CLOSE_SECONDS = 1.0
_METHODS = ("GET", "HEAD")
# The owner and the group may connect.
_UMASK = 0o117
_REMEDIES = {
    errno.EADDRINUSE: "end whoever has it, or name another in metrics.listen",
    errno.EACCES: "name a port from 1024 on, or a socket in a folder that the daemon may write",
}


@asynccontextmanager
async def serve(address: Address, answers: Mapping[str, Answer]) -> AsyncIterator[list[Any]]:
    """Answer at this address until the exit, by the path that is asked for.

    Yields the names that the kernel gives to the sockets.

    Raises:
        ServiceError: nobody can listen there.
    """
    async with AsyncExitStack() as stack:
        with _telling(address):
            if isinstance(address, UnixAddress):
                # Entered first: whoever serves it has to end before it is closed.
                bound = stack.enter_context(_bound(address.path))
                runner = await stack.enter_async_context(_running(answers))
                await web.SockSite(runner, bound).start()
            else:
                runner = await stack.enter_async_context(_running(answers))
                await web.TCPSite(runner, address.host, address.port).start()
        yield runner.addresses


@asynccontextmanager
async def _running(answers: Mapping[str, Answer]) -> AsyncIterator[web.ServerRunner]:
    runner = web.ServerRunner(Server(answers), shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


class Server(web.Server):
    """GET and HEAD, one request a connection, of short lines and without a body."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        super().__init__(
            self._answer,
            access_log=None,
            logger=_logger(),
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            auto_decompress=False,
            lingering_time=0,
        )
        self._answers = answers
        self._ends: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Set the end of the connection; for one too many that is the next round of the loop."""
        super().connection_made(handler, transport)
        seconds = CONNECTION_SECONDS if len(self._ends) < CONNECTIONS else 0
        self._ends[handler] = asyncio.get_running_loop().call_later(seconds, transport.abort)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """It has ended; its time need not."""
        super().connection_lost(handler, exc)
        self._ends.pop(handler).cancel()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        response = await self._respond(request)
        response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        if request.method not in _METHODS:
            return web.Response(status=405, headers={"Allow": ", ".join(_METHODS)})
        answer = self._answers.get(request.path)
        return await answer(request) if answer else web.Response(status=404)


def _logger() -> logging.Logger:
    """For standard error: an error of ours, but not what clients send that is no HTTP."""
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


@contextmanager
def _telling(address: Address) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "name an address of this host in metrics.listen")
        raise ServiceError(f"cannot listen at {address}: {_words(error)}; {remedy}") from error


def _words(error: OSError) -> str:
    """What the system says, without what asyncio puts around it."""
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    # From Python 3.13 on asyncio goes past addresses that are not this host's, and then has none.
    return os.strerror(error.errno or errno.EADDRNOTAVAIL)


@contextmanager
def _bound(path: Path) -> Iterator[socket.socket]:
    """A socket of this name, which is gone at the exit."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as made:
        if _is_left_over(path):
            path.unlink()
        _bind(made, path)
        ours = path.lstat()
        try:
            yield made
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), ours):
                    path.unlink()


def _bind(made: socket.socket, path: Path) -> None:
    """Bind so that others may never connect, not even until a chmod."""
    before = os.umask(_UMASK)
    try:
        made.bind(os.fspath(path))
    finally:
        os.umask(before)


def _is_left_over(path: Path) -> bool:
    """Whether there is a socket of that name which nobody listens at: a daemon was killed."""
    if not path.is_socket():
        return False
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(0)
        return probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
