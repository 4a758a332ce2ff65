"""`http` steps of the real daemon: what a server gets, servers that are broken, and secrets."""

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.acceptance.harness import PROJECT
from tests.acceptance.sites import Site
from tests.contract.posts import Answer, Line, Post, Posts, answering, response, serving

TOKEN = "planted-9f8e7d6c5b4a"  # noqa: S105 - the one that is searched for


@contextmanager
def posts_to(answer: Answer) -> Iterator[Posts]:
    """A server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = serving(answer)
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    finally:
        closing = server.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(_all(closing), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _all(closing: object) -> None:
    await closing  # type: ignore[misc]


def step(posts: Posts, name: str, *more: str) -> str:
    return "\n".join([f'name = "{name}"', f'http = "http://127.0.0.1:{posts.port}/{name}"', *more])


async def _upload_then_index(post: Post, line: Line) -> None:
    if post.path == "/upload":
        await line.say(response(200, '{"id": 17}', Content_Type="application/json"))
    else:
        await line.say(response(204))


def test_two_steps(site: Site) -> None:
    """A file is uploaded, what the server answers reaches the next step, and the file is done."""
    (site.tree / "a.csv").write_text("1,2,3\n")
    with posts_to(_upload_then_index) as posts:
        upload = step(posts, "upload", 'body = "file"')
        site.configure(site.watch(upload, step(posts, "index")))
        daemon = site.start().ready()
        daemon.done("a.csv")
        daemon.stop()
    uploaded, indexed = posts.got
    assert (uploaded.path, uploaded.body) == ("/upload", b"1,2,3\n")
    event = msgspec.json.decode(indexed.body)
    assert event["source"] == "/treewarden/test/w"
    assert event["data"]["previous"] == {"id": 17}
    assert uploaded.headers["idempotency-key"] != indexed.headers["idempotency-key"]


def test_destination_that_is_broken_for_long(site: Site) -> None:
    """A server that answers 500 to everything quarantines nothing; when it is back, all is done."""
    names = [f"{n}.csv" for n in range(12)]
    for name in names:
        (site.tree / name).write_text(name)
    with posts_to(answering(500, "no database")) as posts:
        breaker = 'breaker = { after = 3, first = "50ms", max = "50ms" }'
        retry = 'attempts = 3\nbackoff = { first = "50ms", max = "50ms" }'
        site.configure(site.watch(step(posts, "post", breaker, retry, "concurrency = 4")))
        daemon = site.start().ready()
        opened = daemon.line("daemon.step_open")
        assert "HTTP 500: no database" in str(opened)
        daemon.wait_for(lambda _: len(posts.got) >= 20, "20 requests")
        posts.answer = answering(204)
        daemon.done(*names)
        lines = daemon.stop()
    assert not [line for line in lines if line.get("to_state") == "quarantined"]


async def _choke_on_one(post: Post, line: Line) -> None:
    poisonous = msgspec.json.decode(post.body)["data"]["relpath"] == "poison.csv"
    await line.say(response(500 if poisonous else 204))


def test_poisonous_file(site: Site) -> None:
    """A file that alone makes the server answer 500 ends in quarantine, and holds up no other."""
    names = [f"{n}.csv" for n in range(12)]
    for name in [*names, "poison.csv"]:
        (site.tree / name).write_text(name)
    with posts_to(_choke_on_one) as posts:
        retry = 'attempts = 2\nbackoff = { first = "50ms", max = "50ms" }'
        site.configure(site.watch(step(posts, "post", retry)))
        daemon = site.start().ready()
        daemon.line("fail", path="poison.csv", to_state="quarantined")
        daemon.done(*names)
        daemon.stop()


async def _repeat(post: Post, line: Line) -> None:
    told = f"you said {post.headers['authorization']}"
    name = msgspec.json.decode(post.body)["data"]["relpath"]
    if name.startswith("ok"):
        quoted = msgspec.json.encode({"said": told})
        await line.say(response(200, quoted, Content_Type="application/json"))
    else:
        await line.say(response(422 if name == "refused" else 500, told, Location=told))


def secret(site: Site, mode: int = 0o600) -> str:
    path = site.folder / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(mode)
    return f'auth = "bearer"\nsecret = {{ file = "{path}" }}'


def test_token_is_told_nowhere(site: Site) -> None:
    """A token that the server gets, and repeats, is in no output, in no file, and not in `ps`."""
    for name in ("ok", "refused", "broken"):
        (site.tree / name).write_text(name)
    found: dict[str, bytes] = {}
    with posts_to(_repeat) as posts:
        posting = step(posts, "post", secret(site), "attempts = 2", 'backoff.first = "50ms"')
        last = 'name = "say"\ncommand = ["sh", "-c", "echo $TREEWARDEN_PREVIOUS >&2; exit 65"]'
        site.configure(site.watch(posting, last))
        site.config.write_text(f'{site.config.read_text()}\n[metrics]\nlisten = "unix:m"\n')
        daemon = site.start().ready()
        for name in ("ok", "refused", "broken"):
            daemon.wait_for(lambda _, n=name: daemon.state(n) == "quarantined", name)  # type: ignore[misc]
        asked = ["curl", "-s", "--unix-socket", str(site.folder / "m"), "http://x/metrics"]
        found["metrics"] = subprocess.run(asked, check=True, capture_output=True).stdout
        for what in ("cmdline", "environ"):
            found[what] = Path(f"/proc/{daemon.pid}/{what}").read_bytes()
        for command in ("status", "ls", "show", "explain", "check"):
            paths = ["refused"] if command in {"show", "explain"} else []
            for form in ([], ["--json"]):
                said = site.run(command, "--config", str(site.config), *paths, *form)
                found[f"{command} {form}"] = (said.stdout + said.stderr).encode()
        lines = daemon.stop()
    found["log"] = msgspec.json.encode(lines)
    for path in site.state.rglob("*"):
        if path.is_file():
            found[path.name] = path.read_bytes()
    assert {post.headers["authorization"] for post in posts.got} == {f"Bearer {TOKEN}"}
    assert [what for what, said in found.items() if TOKEN.encode() in said] == []
    # It was not looked for in vain: each of these had the chance to hold it.
    for what in ("log", "explain []", "treewarden.db"):
        assert b"[secret]" in found[what], what
    assert b"HTTP 422" in found["show []"]
    assert b"treewarden_" in found["metrics"]


def test_secret_that_others_can_read(site: Site) -> None:
    """A secret with a wrong mode keeps the daemon from starting, and `check` says so beforehand."""
    with posts_to(answering(204)) as posts:
        site.configure(site.watch(step(posts, "post", secret(site, 0o644))))
        refused = site.refused()
        checked = site.run("check", "--config", str(site.config))
    assert (refused.returncode, checked.returncode) == (78, 78)
    for said in (refused.stderr, checked.stdout):
        assert "found mode 0644: others may read or write it" in said
        assert "chmod 0600" in said
        assert TOKEN not in said


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_check(site: Site, mode: int) -> None:
    """`check` looks at what is here, and asks no server."""
    with posts_to(answering(204)) as posts:
        site.configure(site.watch(step(posts, "post", secret(site, mode))))
        checked = site.run("check", "--config", str(site.config))
    assert checked.returncode == 0
    assert "w.post.http " in checked.stdout
    assert f" http://127.0.0.1:{posts.port}, which is not asked here" in checked.stdout
    assert "token', which others cannot read" in checked.stdout
    assert posts.connections == 0


def test_credential_outside_of_the_service(site: Site) -> None:
    """Where `check` cannot see the service's credentials it says that, and how to ask there."""
    site.environment["CREDENTIALS_DIRECTORY"] = ""
    with posts_to(answering(204)) as posts:
        keys = 'auth = "bearer"\nsecret = { credential = "api" }'
        site.configure(site.watch(step(posts, "post", keys)))
        checked = site.run("check", "--config", str(site.config))
        refused = site.refused()
    assert checked.returncode == 0
    assert "the credential 'api' is known to the service alone" in checked.stdout
    assert refused.returncode == 78
    assert "LoadCredential=api" in refused.stderr


PAGE = (PROJECT / "docs" / "handlers.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    """The block of the page that follows a marker."""
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert found, marker
    return found[1]


@contextmanager
def receiver_of_the_page(folder: Path) -> Iterator[int]:
    """The receiver that the page shows, as a process; its port."""
    (folder / "receiver.py").write_text(block("http-receiver"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "receiver.py", str(port), "key"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL) as process:
        yield port
        process.terminate()


def test_example_of_the_page(site: Site) -> None:
    """The example of docs/handlers.md runs as it stands: the receiver accepts what is signed."""
    key = site.folder / "key"
    key.write_text("in earnest from /dev/urandom\n")
    key.chmod(0o600)
    with receiver_of_the_page(site.folder) as port:
        (site.folder / "incoming").mkdir()
        (site.folder / "incoming" / "a.csv").write_text("1")
        site.configure(block("http-config").replace("8085", str(port)))
        daemon = site.start().ready()
        daemon.done("a.csv")
        daemon.stop()


def test_example_refuses_another_key(site: Site) -> None:
    """The receiver of the page refuses what somebody else has signed."""
    for name, secret in (("key", "the receiver's own"), ("ours", "another one")):
        (site.folder / name).write_text(secret)
        (site.folder / name).chmod(0o600)
    with receiver_of_the_page(site.folder) as port:
        (site.folder / "incoming").mkdir()
        (site.folder / "incoming" / "a.csv").write_text("1")
        config = block("http-config").replace("8085", str(port))
        site.configure(config.replace('file = "key"', 'file = "ours"'))
        daemon = site.start().ready()
        daemon.wait_for(
            lambda lines: any("HTTP 401" in str(line.get("error")) for line in lines), "a refusal"
        )
        daemon.stop()
    assert daemon.state("a.csv") == "quarantined"
