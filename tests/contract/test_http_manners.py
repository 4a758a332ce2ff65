"""What an `http` step takes from nobody: a proxy, cookies, an answer that is to be unpacked."""

import gzip
from pathlib import Path

import pytest

from daemon.config_steps import HttpStep
from daemon.handlers.http import HttpHandler
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
    async with serving(answer) as posts:
        # By name, for a number has no cookies anyhow.
        handler = HttpHandler(HttpStep(name="load", http=f"http://localhost:{posts.port}/"), "n")
        for _ in range(2):
            assert (await handler.run(job_of(FILE))).verdict == "success"
        await handler.close()
    assert ["cookie" in post.headers for post in posts.got] == [False, False]


async def test_answer_that_is_packed() -> None:
    """An answer is taken as it comes: 48 KB of it could be 50 MB when unpacked."""
    answer = answering(400, gzip.compress(b"no table"), Content_Encoding="gzip")
    async with serving(answer) as posts, sending(posts) as handler:
        outcome = await handler.run(job_of(FILE))
    assert outcome.verdict == "reject"
    assert "no table" not in f"{outcome.error}"
