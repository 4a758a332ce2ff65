"""The `http` handler: posts the file, or an event about it, to a URL.

aiohttp, 13 MB and 0.15 s, is imported with this module: import it where a step asks for it.
"""

import asyncio
import time
from collections.abc import Iterator

import aiohttp
from msgspec.structs import replace

from daemon import __version__
from daemon.config_http import origin
from daemon.config_steps import HttpStep
from daemon.handlers import Job, Outcome
from daemon.handlers.http_answer import Answer, judge, judge_silence
from daemon.handlers.http_client import Client
from daemon.handlers.http_event import JSON, Source
from daemon.handlers.http_upload import Unreadable, Upload, opened
from daemon.handlers.secrets import Key, read_key
from daemon.handlers.threads import Threads
from daemon.handlers.tls import context_of


class HttpHandler:
    """Sends what a step says where it says; `node` is this host's name in the events.

    Raises `ConfigError` where a secret or a certificate that the step names cannot be used.
    """

    def __init__(self, step: HttpStep, node: str) -> None:
        key = read_key(step.secret, token=step.auth == "bearer") if step.secret else None
        self._step = step
        self._where = origin(step.http)
        self._source = Source(node)
        self._signing = key if step.auth == "hmac-sha256" else None
        self._bearer = key if step.auth == "bearer" else None
        self._fixed = dict(_fixed_headers(step))
        tls = context_of(step) if step.http.startswith("https:") else None
        self._client = Client(step, key, tls)
        self._threads = Threads(f"read-{step.name}", step.places)

    async def run(self, job: Job) -> Outcome:
        """Post, and judge the answer. Cancelling closes the connection, whatever it was at."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._step.timeout):
                outcome = await self._hand_over(job)
        except TimeoutError:
            outcome = Outcome("retry", f"timed out after {self._step.timeout:g}s", suspect=True)
        return replace(outcome, duration_ms=round((time.monotonic() - began) * 1000, 3))

    async def close(self) -> None:
        """Close the connections that were kept, and end the threads that read."""
        await self._client.close()
        await self._threads.close()

    async def _hand_over(self, job: Job) -> Outcome:
        try:
            answer = await self._send(job)
        except Unreadable as unreadable:
            return unreadable.outcome
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return judge_silence(error, self._where, self._step.connect)
        return judge(answer, self._step.backoff.first)

    async def _send(self, job: Job) -> Answer:
        headers = {"Idempotency-Key": job.idempotency_key, **self._fixed}
        if self._bearer is not None:
            headers["Authorization"] = self._bearer.bearer
        if self._step.body == "event" or job.plan == "remove":
            return await self._post(job, headers | JSON, self._source.as_json(job))
        with await opened(job, self._threads) as upload:
            headers |= self._source.as_headers(job)
            if upload.content is not None:
                return await self._post(job, headers, upload.content)
            return await self._stream(job, headers, upload)

    async def _post(self, job: Job, headers: dict[str, str], body: bytes) -> Answer:
        if self._signing is not None:
            signature = _Signature(self._signing, job)
            signature.mac.update(body)
            headers[self._step.signature_header] = str(signature)
        return await self._client.post(headers, body)

    async def _stream(self, job: Job, headers: dict[str, str], upload: Upload) -> Answer:
        if self._signing is not None:
            signature = _Signature(self._signing, job)
            await upload.feed(signature.mac)
            headers[self._step.signature_header] = str(signature)
        headers["Content-Length"] = str(upload.size)
        try:
            return await self._client.stream(headers, upload.pieces())
        except aiohttp.ClientError as error:
            # What a body raises comes back inside an error of the client's.
            raise upload.failed or error from None


class _Signature:
    """`t=SECONDS,v1=HEX`: an HMAC-SHA256 of the time, the idempotency key and the body.

    So neither an old request nor a body under another key is taken for a new one.
    """

    def __init__(self, key: Key, job: Job) -> None:
        self._time = int(time.time())
        self.mac = key.mac(f"{self._time}.{job.idempotency_key}.".encode())

    def __str__(self) -> str:
        return f"t={self._time},v1={self.mac.hexdigest()}"


def _fixed_headers(step: HttpStep) -> Iterator[tuple[str, str]]:
    given = {name.lower() for name, _ in step.headers}
    yield "Accept-Encoding", "identity"
    if "user-agent" not in given:
        yield "User-Agent", f"treewarden/{__version__}"
    if step.body == "file" and "content-type" not in given:
        yield "Content-Type", "application/octet-stream"
    yield from step.headers
