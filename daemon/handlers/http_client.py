"""The connections of an `http` step: HTTP/1.1, kept open, to one place. No redirect is followed."""

import ssl
from collections.abc import AsyncIterator, Mapping

import aiohttp
from yarl import URL

from daemon.config_steps import HttpStep
from daemon.handlers.http_answer import READ_BYTES, Answer
from daemon.handlers.secrets import Key

Body = bytes | AsyncIterator[bytes]
# A part of the answer that arrives is never kept waiting for the next: so much of it at once.
_BUFFER = READ_BYTES


class Client:
    """Posts to the URL of a step. What a server repeats of `key` is taken out of its answers."""

    def __init__(self, step: HttpStep, key: Key | None, tls: ssl.SSLContext | None) -> None:
        self._step = step
        self._url = URL(step.http, encoded=True)
        self._key = key
        self._tls = tls
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Over a connection that is kept; over a new one when that breaks before an answer begins.

        A server may close an idle connection at the moment when we use it. Nothing tells that from
        a request that it has got, so it gets it again: it has the key to know it by.
        """
        try:
            response = await self._begin(headers, body, kept=True)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            response = await self._begin(headers, body, kept=False)
        return await self._answer(response)

    async def stream(self, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> Answer:
        """Over a connection of its own: a body is not there a second time."""
        return await self._answer(await self._begin(headers, body, kept=False))

    async def close(self) -> None:
        """Close what was kept."""
        while self._sessions:
            await self._sessions.popitem()[1].close()

    async def _begin(
        self, headers: Mapping[str, str], body: Body, *, kept: bool
    ) -> aiohttp.ClientResponse:
        session = self._sessions.get(kept) or self._open(kept=kept)
        return await session.post(self._url, data=body, headers=headers, allow_redirects=False)

    def _open(self, *, kept: bool) -> aiohttp.ClientSession:
        step = self._step
        session = self._sessions[kept] = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=step.concurrency, ssl=self._tls or True, force_close=not kept
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=step.connect),
            auto_decompress=False,
            read_bufsize=_BUFFER,
        )
        return session

    async def _answer(self, response: aiohttp.ClientResponse) -> Answer:
        async with response:
            body = bytearray()
            # At the end of an answer this asks nobody, and a longer one is not read any further.
            while len(body) <= READ_BYTES and not response.content.at_eof():
                body += await response.content.read(READ_BYTES + 1 - len(body))
            if not response.content.at_eof():
                response.close()
            return self._read(response, bytes(body))

    def _read(self, response: aiohttp.ClientResponse, body: bytes) -> Answer:
        cut = len(body) > READ_BYTES
        return Answer(
            response.status,
            response.headers.get("Content-Type", ""),
            response.headers.get("Retry-After"),
            self._key.hide(body, cut=cut) if self._key else body,
            cut,
        )
