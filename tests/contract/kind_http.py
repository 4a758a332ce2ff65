"""The `http` kind for the conformance suite: what it posts to is a server that behaves so.

The server is nobody's child and no part of this process: the suite counts children and descriptors.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlencode

from daemon.config_steps import HttpStep
from daemon.handlers import Handler
from daemon.handlers.http import HttpHandler
from tests.contract.kind_http_server import BEHAVIOURS
from tests.contract.kinds import Build, Kind

_ROOT = Path(__file__).parents[2]
_NOBODY = "a request has no process, and its end asks nobody"
EXCUSES = {
    "says 10 MB": "of an answer 64 KB are read, as its own tests show",
    "stays, deaf to TERM": _NOBODY,
    "ends on TERM, its child does not": _NOBODY,
    "answers TERM and stays": _NOBODY,
    "leaves a child behind": _NOBODY,
}

# The end of the pipe by which the server knows that we are there.
_KEPT: list[int] = []


@cache
def _port() -> int:
    """Start the server, once; it ends when this process does, whose end of a pipe it reads."""
    given, kept = os.pipe()
    program = 'exec 3<&0; "$0" -m tests.contract.kind_http_server <&3 &'
    said = subprocess.Popen(
        ["sh", "-c", program, sys.executable], cwd=_ROOT, stdin=given, stdout=subprocess.PIPE
    )
    os.close(given)
    _KEPT.append(kept)
    with said:
        assert said.stdout is not None
        return int(said.stdout.readline())


@asynccontextmanager
async def _opened(folder: Path) -> AsyncIterator[Build]:
    built: list[Handler] = []
    port = _port()  # here, for no test's deadline is about its start

    def build(
        behaviour: str,
        *,
        timeout: float = 60,
        kill_after: float = 60,  # noqa: ARG001 - nobody has to be killed
        places: int = 1,
    ) -> Handler:
        query = urlencode({"like": behaviour, "folder": folder})
        url = f"http://127.0.0.1:{port}/?{query}"
        step = HttpStep(name="load", http=url, timeout=timeout, concurrency=places)
        built.append(HttpHandler(step, "here"))
        return built[-1]

    yield build
    for handler in built:
        await handler.close()


KINDS = (Kind("http", BEHAVIOURS.keys(), _opened, EXCUSES),)
