"""`/metrics` and `/health` on a real socket, asked by a real client, of the real engine."""

import asyncio
import errno
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple, cast

import aiohttp
import prometheus_client
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from daemon.cli.harness import Rig
from daemon.config_address import Address, TcpAddress, UnixAddress
from daemon.config_steps import WorkerStep
from daemon.errors import ServiceError, StoreUnavailable
from daemon.handlers import Outcome
from daemon.ops import http, metrics
from daemon.ops.http import serve
from daemon.ops.metrics import Answers
from daemon.store import StateCount, Store
from tests.engine.conftest import DEADLINE, Gate, Open, background

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
HERE = TcpAddress("127.0.0.1", 0)
REQUEST = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b'{"status":"ok","reasons":[]}'

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """Asks one server."""

    def __init__(self, place: Any) -> None:
        self.place = place

    async def ask(self, path: str, method: str = "GET", **options: Any) -> Reply:
        unix = isinstance(self.place, str)
        connector = aiohttp.UnixConnector(self.place) if unix else None
        port = 80 if unix else self.place[1]
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://127.0.0.1:{port}{path}", **options) as response,
        ):
            return Reply(response.status, dict(response.headers), await response.read())

    async def samples(self) -> Samples:
        """What Prometheus would read."""
        reply = await self.ask("/metrics")
        assert reply.status == 200
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families(reply.body.decode())
            for sample in family.samples
        }

    async def health(self) -> tuple[int, list[str]]:
        reply = await self.ask("/health")
        assert reply.headers["Content-Type"].startswith("application/json")
        answer: dict[str, Any] = json.loads(reply.body)
        assert answer["status"] == ("ok" if reply.status == 200 else "unavailable")
        return reply.status, answer["reasons"]

    async def raw(self, text: bytes) -> bytes:
        """Send this, and read until the server ends the connection, one way or the other."""
        reader, writer = await asyncio.open_connection(*self.place)
        writer.write(text)
        try:
            return await asyncio.wait_for(reader.read(), DEADLINE)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@asynccontextmanager
async def served(rig: Rig, address: Address = HERE) -> AsyncIterator[Client]:
    answers = Answers(rig.service, rig.journal).by_path
    async with serve(address, answers) as places:
        yield Client(places[0])


def of(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


async def scanned(rig: Rig) -> None:
    (tree,) = rig.service.trees.values()
    await rig.service.reconciler.reconcile(tree, "start")
    await rig.service.inbox.idle()


def documented() -> dict[str, tuple[str, set[str]]]:
    """Name to type and labels, as the table of the document has them."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ?(.*?) ?\|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}


async def test_what_is_served_is_documented(engine: Open) -> None:
    """Every metric of ours is in the document with its type and its labels, and the other way."""
    worker = WorkerStep(name="undo", worker=("true",))
    async with engine(removed=(worker,)) as rig, served(rig) as client:
        await scanned(rig)
        (tree,) = rig.service.trees.values()
        tree.detection.latency_us = 1
        found = {}
        for family in families((await client.ask("/metrics")).body.decode()):
            assert family.documentation
            for sample in family.samples:
                if not sample.name.startswith("process_"):
                    found[sample.name] = (family.type, set(sample.labels))
    assert found == documented()
    assert {label for _, labels in found.values() for label in labels} == {
        *("watch", "state", "cause", "mode", "step"),
    }


async def test_causes_are_those_of_the_log() -> None:
    """Each cause that a scan may have, as the log's document has them, begins with 0."""
    text = (DOCUMENT.parent / "events.md").read_text()
    (line,) = re.findall(r"^\| `daemon.reconciled` .*$", text, re.MULTILINE)
    causes, parts = re.findall(r"`cause`: (.*?)\. |scans of parts \((.*?)\)", line)
    assert set(metrics.CAUSES) == set(re.findall(r"`(\w+)`", causes[0] + parts[1]))


async def test_the_files_of_a_watch(engine: Open) -> None:
    """Files by state as they are committed, with 0 for the rest; handlers while they run."""
    gate = Gate()
    async with (
        engine(gate) as rig,
        served(rig) as client,
        background(rig.service.dispatcher.run()),
    ):
        first, second = rig.write("a"), rig.write("b")
        for name in (first, second):
            await rig.send(name, "look")
            await rig.send(name, "look")
        await gate.next()
        await gate.next()
        running = await client.samples()
        assert running[of("treewarden_handlers_running")] == 2
        assert running[of("treewarden_files", watch="incoming", state="processing")] == 2
        assert running[of("treewarden_files", watch="incoming", state="quarantined")] == 0
        assert running[of("treewarden_transitions_total")] == rig.service.ledger.committed >= 4
        assert running[of("treewarden_inbox_triggers")] == 0


async def test_how_changes_are_found(engine: Open) -> None:
    """The figures of detection, in seconds; what is not known has no sample."""
    async with engine() as rig, served(rig) as client:
        (tree,) = rig.service.trees.values()
        before = await client.samples()
        assert of("treewarden_watcher_latency_seconds", watch="incoming") not in before
        assert of("treewarden_directories", watch="incoming") not in before
        assert before[of("treewarden_watcher_mode", watch="incoming", mode="inotify")] == 1
        assert before[of("treewarden_files_missed_total", watch="incoming", cause="burst")] == 0
        seen = tree.detection
        seen.latency_us, seen.directories, seen.mode = 2_500, 7, "partly"
        seen.overflows, seen.restarts, seen.frozen = 3, 4, "most are missing"
        seen.silent_since = 1
        seen.miss("burst", 5)
        seen.miss("unheard_of", 1)
        seen.missed.clear()
        tree.rooted.clear()
        after = await client.samples()
    expected = {
        of("treewarden_watcher_latency_seconds", watch="incoming"): 0.0025,
        of("treewarden_directories", watch="incoming"): 7,
        of("treewarden_watcher_mode", watch="incoming", mode="inotify"): 0,
        of("treewarden_watcher_mode", watch="incoming", mode="partly"): 1,
        of("treewarden_watcher_overflows_total", watch="incoming"): 3,
        of("treewarden_watcher_restarts_total", watch="incoming"): 4,
        of("treewarden_tree_silent", watch="incoming"): 1,
        of("treewarden_removals_frozen", watch="incoming"): 1,
        of("treewarden_root_present", watch="incoming"): 0,
        of("treewarden_files_missed_total", watch="incoming", cause="burst"): 5,
        of("treewarden_files_missed_total", watch="incoming", cause="unheard_of"): 1,
    }
    assert {name: after[name] for name in expected} == expected


async def test_lines_that_are_owed(engine: Open) -> None:
    """While the log cannot be written, every committed transition counts; then none does."""
    async with engine() as rig, served(rig) as client:
        held = asyncio.Event()
        write = rig.journal._output.write

        async def stall(data: bytes) -> None:
            await held.wait()
            await write(data)

        cast("Any", rig.journal._output).write = stall
        for name in "abc":
            rig.write(name)
            await rig.send(rig.key(name), "look")
        committed = rig.service.ledger.committed
        assert (await client.samples())[of("treewarden_lines_owed")] == committed >= 3
        held.set()
        await rig.lines()
        assert (await client.samples())[of("treewarden_lines_owed")] == 0


async def test_no_path_is_told(engine: Open) -> None:
    """Whatever files are called, neither their names nor the tree's path is in an answer.

    Nor while one of them is handled and another waits.
    """
    gate = Gate()
    async with (
        engine(gate, concurrency=1) as rig,
        served(rig) as client,
        background(rig.service.dispatcher.run()),
    ):
        for name in ("secret-plan.pdf", 'quo"te\nsecret'):
            await rig.send(rig.write(name), "look")
        _, ending = await gate.next()
        told = (await client.ask("/metrics")).body + (await client.ask("/health")).body
        ending.set_result(Outcome("success"))
        last = (await gate.let_pass()).file
        await rig.state(last, ["done"])
    assert b"secret" not in told
    assert os.fsencode(rig.log.parent) not in told


async def test_the_registry_is_our_own(engine: Open) -> None:
    """Nothing of ours gets into the library's registry, and nothing of its into ours."""
    async with engine() as rig, served(rig) as client:
        ours = {name for name, _ in await client.samples()}
    theirs = {family.name for family in prometheus_client.REGISTRY.collect()}
    assert not [name for name in theirs if name.startswith("treewarden")]
    assert not [name for name in ours if name.startswith("python")]
    assert "process_resident_memory_bytes" in ours


async def test_openmetrics(engine: Open) -> None:
    """A client that prefers OpenMetrics gets it, whole."""
    kind = "application/openmetrics-text; version=1.0.0"
    async with engine() as rig, served(rig) as client:
        reply = await client.ask("/metrics", headers={"Accept": kind})
    assert reply.headers["Content-Type"].startswith(kind)
    read = openmetrics(reply.body.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in read}
    assert {"treewarden_files", "treewarden_transitions"} <= names


async def test_health(engine: Open) -> None:
    """503 until the first scan, without a root, and when the stop has begun; 200 between."""
    async with engine() as rig, served(rig) as client:
        (tree,) = rig.service.trees.values()
        assert await client.health() == (503, ["incoming: the first scan goes on"])
        await scanned(rig)
        assert await client.health() == (200, [])
        tree.rooted.clear()
        assert await client.health() == (503, ["incoming: there is no folder to watch"])
        tree.rooted.set()
        rig.service.stop()
        assert await client.health() == (503, ["the daemon stops"])


class Away:
    """A store that cannot be read when asked to; `hang` makes it wait for ever instead."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.away = False
        self.hangs = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def counts(self) -> Sequence[StateCount]:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise StoreUnavailable("/secret/treewarden.db: disk I/O error")
        return await self._store.counts()


async def test_without_the_database(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or no answer: 503, and the metrics are served without what is stored."""
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", 0.01)
    async with engine(wrap=lambda store: cast("Store", Away(store))) as rig, served(rig) as client:
        await scanned(rig)
        store = cast("Any", rig.service.ledger.store)
        store.away = True
        assert await client.health() == (503, ["the database does not answer"])
        store.hangs = True
        assert await client.health() == (503, ["the database does not answer"])
        samples = await client.samples()
        names = {name for name, _ in samples}
        assert samples[of("treewarden_database_up")] == 0
        assert "treewarden_directories" in names
        assert not names & {"treewarden_files", "treewarden_lines_owed"}
        store.away = store.hangs = False
        monkeypatch.undo()
        assert await client.health() == (200, [])


async def test_a_database_that_cannot_be_written(engine: Open) -> None:
    """Reading alone is not enough: what could not be recorded is not begun."""
    async with engine() as rig, served(rig) as client:
        await scanned(rig)
        rig.service.ledger.available.clear()
        assert await client.health() == (503, ["the database cannot be used"])
        samples = await client.samples()
        rig.service.ledger.available.set()
    assert samples[of("treewarden_database_up")] == 0
    assert of("treewarden_files", watch="incoming", state="done") in samples


METHODS = [("POST", 405), ("PUT", 405), ("DELETE", 405), ("OPTIONS", 405), ("TRACE", 405)]


@pytest.mark.parametrize(("method", "status"), METHODS)
async def test_only_get_and_head(engine: Open, method: str, status: int) -> None:
    """Nothing can be changed, and HEAD has the length of what GET would bring, and no body."""
    async with engine() as rig, served(rig) as client:
        await scanned(rig)
        reply = await client.ask("/health", method)
        assert (reply.status, reply.headers["Allow"]) == (status, "GET, HEAD")
        head = await client.ask("/health", "HEAD")
        assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(OK)), b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/../x", "/healthz", "/%2e%2e/etc"])
async def test_other_paths(engine: Open, path: str) -> None:
    """There is nothing else."""
    async with engine() as rig, served(rig) as client:
        assert (await client.ask(path)).status == 404
        assert (await client.ask("/metrics?name=x")).status == 200


NO_HTTP = [
    b"garbage\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 5_000 + b"\r\n\r\n",
    b"GET /" + b"y" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
    b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 5_000 + b"\r\n",
]


@pytest.mark.parametrize("text", NO_HTTP)
async def test_what_is_no_request(
    engine: Open, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that is none, or far too long, is answered with 400 and leaves no trace."""
    async with engine() as rig, served(rig) as client:
        assert (await client.raw(text)).startswith(b"HTTP/1.0 400 ")
    assert caplog.records == []


async def test_a_body_is_not_read(engine: Open) -> None:
    """The answer does not wait for what the client goes on about, and ends the connection."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
    async with engine() as rig, served(rig) as client:
        await scanned(rig)
        reply = await client.raw(head)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(OK)


async def test_one_request_a_connection(engine: Open) -> None:
    """What is sent after the first request is not answered."""
    async with engine() as rig, served(rig) as client:
        assert (await client.raw(REQUEST * 3)).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("text", [b"", b"GET /health HTTP/1.1\r\nHost: "])
async def test_a_slow_client_is_left(
    engine: Open, text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not get to the end of a request in time has the connection ended."""
    monkeypatch.setattr(http, "CONNECTION_SECONDS", 0.05)
    async with engine() as rig, served(rig) as client:
        assert await client.raw(text) == b""


async def test_one_connection_too_many(engine: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a connection ends at once; when another has ended there is room again."""
    monkeypatch.setattr(http, "CONNECTIONS", 3)
    async with engine() as rig, served(rig) as client:
        await scanned(rig)
        held = [await asyncio.open_connection(*client.place) for _ in range(3)]
        assert await client.raw(REQUEST) == b""
        for reader, writer in held:
            writer.write(REQUEST)
            assert (await asyncio.wait_for(reader.read(), DEADLINE)).endswith(OK)
            writer.close()
        assert await client.health() == (200, [])


async def test_an_error_of_ours_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A fault in an answer is a 500 without a word to the client, and a trace for the operator."""

    def broken(_request: object) -> str:
        raise RuntimeError("/secret")

    async with serve(HERE, {"/metrics": cast("Any", broken)}) as places:
        reply = await Client(places[0]).ask("/metrics")
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "RuntimeError: /secret" in caplog.text


async def test_a_port_in_use(engine: Open) -> None:
    """The error names the address, what the system says, and the key."""
    async with engine() as rig, served(rig) as client:
        address = TcpAddress("127.0.0.1", client.place[1])
        with pytest.raises(ServiceError) as caught:
            async with served(rig, address):
                pass
        assert (await client.ask("/health")).status == 503
    assert str(caught.value) == (
        f"cannot listen at {address}: Address already in use; "
        "end whoever has it, or name another in metrics.listen"
    )


NOWHERE = [
    (TcpAddress("192.0.2.1", 9464), "Cannot assign requested address", "an address of this host"),
    (TcpAddress("no-such-host.invalid", 9464), "not known", "an address of this host"),
]


@pytest.mark.parametrize(("address", "said", "remedy"), NOWHERE)
async def test_no_address_of_ours(engine: Open, address: Address, said: str, remedy: str) -> None:
    """An address of another host, or a name of none."""
    async with engine() as rig:
        with pytest.raises(ServiceError) as caught:
            async with served(rig, address):
                pass
    assert said in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
async def test_over_ipv6(engine: Open) -> None:
    """IPv6 as well."""
    async with engine() as rig, served(rig, TcpAddress("::1", 0)) as client:
        await scanned(rig)
        assert (await Client(client.place[:2]).raw(REQUEST)).endswith(OK)


async def test_over_a_socket(engine: Open, tmp_path: Path) -> None:
    """Its owner and group may connect, whatever the umask, and afterwards it is gone."""
    path = tmp_path / "metrics.sock"
    before = os.umask(0)
    try:
        async with engine() as rig, served(rig, UnixAddress(path)) as client:
            assert os.umask(0) == 0
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert client.place == str(path)
            await scanned(rig)
            assert await client.health() == (200, [])
            assert (await client.samples())[of("treewarden_database_up")] == 1
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_socket_that_was_left_over(engine: Open, tmp_path: Path) -> None:
    """A killed daemon's socket is replaced; one that is served, or a file, is not."""
    path = tmp_path / "metrics.sock"
    with closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
    async with engine() as rig, served(rig, UnixAddress(path)) as client:
        with pytest.raises(ServiceError, match="Address already in use"):
            async with served(rig, UnixAddress(path)):
                pass
        assert (await client.ask("/health")).status == 503
        path.unlink()
        path.write_text("another's by now")
        with pytest.raises(ServiceError, match="Address already in use"):
            async with served(rig, UnixAddress(path)):
                pass
    assert path.read_text() == "another's by now"


async def test_a_socket_that_is_slow_to_accept(engine: Open, tmp_path: Path) -> None:
    """Whoever has more guests than it can greet is there all the same."""
    path = tmp_path / "metrics.sock"
    with closing(socket.socket(socket.AF_UNIX)) as busy, ExitStack() as guests:
        busy.bind(str(path))
        busy.listen(0)
        answers: list[int] = []
        while errno.EAGAIN not in answers:
            guest = guests.enter_context(closing(socket.socket(socket.AF_UNIX)))
            guest.settimeout(0)
            answers.append(guest.connect_ex(str(path)))
        async with engine() as rig:
            with pytest.raises(ServiceError, match="Address already in use"):
                async with served(rig, UnixAddress(path)):
                    pass
    assert path.is_socket()


async def test_no_folder_for_a_socket(engine: Open, tmp_path: Path) -> None:
    """The folder of the socket is not made."""
    async with engine() as rig:
        with pytest.raises(ServiceError, match="No such file or directory"):
            async with served(rig, UnixAddress(tmp_path / "none" / "metrics.sock")):
                pass


async def test_the_end_waits_for_nobody(engine: Open) -> None:
    """Connections that are open when the daemon stops are ended, and the address is free."""
    async with engine() as rig:
        async with served(rig) as client:
            idle = await asyncio.open_connection(*client.place)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*client.place)
        assert await asyncio.wait_for(idle[0].read(), DEADLINE) == b""
        idle[1].close()
