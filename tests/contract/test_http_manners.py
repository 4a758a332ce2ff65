"""What an `http` step takes from nobody: a proxy, cookies, an answer that is to be unpacked."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from tests.contract.posts import answering, job_of, sending, serving

FILE = Path("/srv/incoming/a.csv")


async def test_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who may set the daemon's environment gets between it and the server."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with (
        serving(answering(204)) as proxy,
        serving(answering(204)) as posts,
        sending(posts) as handler,
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await handler.run(job_of(FILE))).verdict == "success"
    assert (len(posts.got), proxy.connections) == (1, 0)


async def test_no_cookies() -> None:
    """What a server wants to be reminded of with the next file it is not."""
    answer = answering(204, Set_Cookie="session=1; Path=/")
    async with serving(answer) as posts, sending(posts) as handler:
        for _ in range(2):
            await handler.run(job_of(FILE))
    assert ["cookie" in post.headers for post in posts.got] == [False, False]


async def test_answer_that_would_be_large() -> None:
    """An answer of 48 KB that unpacks to 50 MB is not unpacked."""
    bomb = gzip.compress(bytes(50_000_000))
    answer = answering(400, bomb, Content_Encoding="gzip")
    async with serving(answer) as posts, sending(posts) as handler:
        await handler.run(job_of(FILE))
        tracemalloc.start()
        outcome = await handler.run(job_of(FILE))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome.verdict == "reject"
    assert peak < 2_000_000
