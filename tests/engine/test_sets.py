"""Manifests: the files of a delivery settle together, in one transaction, or not at all."""

# ruff: noqa: ASYNC240 - a local file answers at once, and nothing else runs in the loop

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from daemon.cli.harness import Rig
from daemon.config import Settle
from daemon.core.model import Record, Transition, Trigger
from daemon.engine import sets
from daemon.engine.deliveries import Delivery, Verdict
from daemon.handlers import Outcome
from daemon.store import Store
from tests.engine.conftest import Gate, Open
from tests.engine.test_identity import Reads, digest_of, look, scanned, story
from tests.engine.test_marking import key_of, put

MANIFEST: dict[str, Any] = {"settle": Settle(quiet=0.0, manifest="*.manifest")}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def looks(rig: Rig, *names: bytes) -> None:
    for name in names:
        await look(rig, key_of(rig, name))


async def states(rig: Rig, *names: bytes) -> list[str]:
    return [(await rig.row(key_of(rig, name))).state for name in names]


async def faults(rig: Rig) -> list[tuple[str, str]]:
    lines = [line for line in await rig.lines() if line["event"] == "daemon.degraded"]
    return [(line["path"], line["error"]) for line in lines]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
async def test_members_settle_together(engine: Open, tree: Path, order: Sequence[int]) -> None:
    """Complete with the last of them or with the manifest, in whatever order they come."""
    members = [b"d/a", b"d/sub/b", b"d/c"]
    text = b"a\n./sub/b\n" + sha256(b"x").encode() + b"  c\n"
    async with engine(**MANIFEST) as rig:
        for place in order:
            assert set(await states(rig, *members)) <= {"untracked", "settling"}
            name = [*members, b"d/x.manifest"][place]
            put(tree, name, text if place == 3 else b"x", 1_000 + place)
            await looks(rig, name)
        assert await states(rig, *members) == ["ready"] * 3
        settles = [line for line in await rig.lines() if line["event"] == "settle"]
        assert {line["evidence"] for line in settles} == {"quiet+lease+manifest"}
        assert {line["cause"] for line in settles} == {"manifest"}
        assert (await rig.row(key_of(rig, b"d/x.manifest"))).id == 0
        assert (tree / "d/x.manifest").exists()


class Batches:
    """A store that notes how many transitions came in one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.settles: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, batch: Sequence[tuple[Transition, Record]], journaled: int) -> list[bool]:
        settles = sum(transition.event == "settle" for transition, _ in batch)
        self.settles += [settles] if settles else []
        return await self._store.apply(batch, journaled)


async def test_one_transaction(engine: Open, tree: Path) -> None:
    """3,000 members are in one transaction, and found by one scan that saw all of them."""
    batches: list[Batches] = []

    def wrap(store: Store) -> Store:
        batches.append(Batches(store))
        return cast("Store", batches[0])

    async with engine(wrap=wrap, steps=0, **MANIFEST) as rig:
        names = [b"%d/%d" % (number % 7, number) for number in range(3_000)]
        for name in names:
            put(tree, name)
        put(tree, b"all.manifest", b"\n".join(names))
        await scanned(rig)
        assert {row and row.state for row in await _rows(rig, names)} == {"done"}
        assert batches[0].settles == [3_000]


async def _rows(rig: Rig, names: Sequence[bytes]) -> list[Any]:
    return await rig.store.rows([key_of(rig, name) for name in names])


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"%s *", b"#1", b" x ", b"n" * 255])
async def test_any_name(engine: Open, tree: Path, name: bytes) -> None:
    """Names of newlines, of bytes that are not UTF-8, of what means something in a manifest."""
    async with engine(**MANIFEST) as rig:
        put(tree, name, b"x")
        escaped = name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
        start = b"\\" if escaped != name else b""
        put(tree, b"x.manifest", start + sha256(b"x").encode() + b"  " + escaped + b"\n")
        await looks(rig, name, b"x.manifest")
        assert await states(rig, name) == ["ready"]


async def test_one_that_is_missing_keeps_all_back(engine: Open, tree: Path) -> None:
    """Nothing of a set settles, nor does what no manifest names; nothing is polled for it."""
    async with engine(**MANIFEST) as rig:
        for name in (b"a", b"b", b"alone"):
            put(tree, name)
        put(tree, b"x.manifest", b"a\nb\nc\n")
        await looks(rig, b"a", b"b", b"alone", b"x.manifest", b"a", b"b")
        assert await states(rig, b"a", b"b", b"alone") == ["settling"] * 3
        put(tree, b"c", b"x", 1_000)
        await looks(rig, b"c")
        assert await states(rig, b"a", b"b", b"c", b"alone") == ["ready"] * 3 + ["settling"]


async def test_one_that_is_open_keeps_all_back(engine: Open, tree: Path) -> None:
    """A member that somebody has open for writing has not settled; closed, it brings the set."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        with put(tree, b"b").open("ab"):
            put(tree, b"x.manifest", b"a\nb\n")
            await looks(rig, b"a", b"b", b"x.manifest")
            assert await states(rig, b"a", b"b") == ["settling"] * 2
        await looks(rig, b"b")
        assert await states(rig, b"a", b"b") == ["ready"] * 2


async def test_manifest_that_is_still_written(engine: Open, tree: Path) -> None:
    """Half a manifest is neither followed nor complained of; closed, it is read by itself."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        await looks(rig, b"a")
        with put(tree, b"x.manifest", b"/absolute").open("wb", buffering=0) as file:
            await looks(rig, b"x.manifest", b"a")
            assert await states(rig, b"a") == ["settling"]
            file.write(b"a\n")
        await rig.state(key_of(rig, b"a"), ["ready"])
        assert await faults(rig) == []


async def test_wrong_checksum_then_corrected(engine: Open, tree: Path) -> None:
    """Said once with its line; the right bytes settle the set, if they are not newer."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a", b"right")
        put(tree, b"b", b"wrong")
        text = f"# sums\n{sha256(b'right')}  a\n{sha256(b'right')}  b\n"
        put(tree, b"x.manifest", text.encode())
        await looks(rig, b"a", b"b", b"x.manifest", b"b", b"x.manifest")
        assert await states(rig, b"a", b"b") == ["settling"] * 2
        assert await faults(rig) == [("x.manifest", "line 3: 'b' has another checksum")]
        put(tree, b"b", b"right", 1_000)
        await looks(rig, b"b")
        assert await states(rig, b"a", b"b") == ["ready"] * 2


async def test_member_that_changed_after_the_manifest(engine: Open, tree: Path) -> None:
    """A member with a later mtime than the manifest keeps the set back until that is made anew."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"x.manifest", b"a\nb\n", 1_000_000_000)
        put(tree, b"b")
        await looks(rig, b"a", b"b", b"x.manifest")
        assert await states(rig, b"a", b"b") == ["settling"] * 2
        (tree / "x.manifest").touch()
        await looks(rig, b"x.manifest")
        assert await states(rig, b"a", b"b") == ["ready"] * 2


async def test_faulty_manifest(engine: Open, tree: Path) -> None:
    """A fault is on the log once, with its line, until the manifest is another."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"x.manifest", b"a\n../b\n")
        for _ in range(3):
            await looks(rig, b"a", b"x.manifest")
            await scanned(rig)
        fault = "line 2: '../b' leads out of the manifest's directory by '..'"
        assert await faults(rig) == [("x.manifest", fault)]
        assert await states(rig, b"a") == ["settling"]
        put(tree, b"x.manifest", b"a\n")
        await looks(rig, b"x.manifest")
        assert await states(rig, b"a") == ["ready"]


@pytest.mark.parametrize("name", [b"b.part", b"a.done"])
async def test_member_that_is_never_taken(engine: Open, tree: Path, name: bytes) -> None:
    """A member that the watch leaves out, or takes for a marker, could never settle: a fault."""
    settle = Settle(quiet=0.0, manifest="*.manifest", marker="{name}.done")
    async with engine(exclude=("*.part",), settle=settle) as rig:
        put(tree, b"x.manifest", b"a\n" + name + b"\n")
        await looks(rig, b"x.manifest")
        fault = f"line 2: '{name.decode()}' is no file that this watch takes"
        assert await faults(rig) == [("x.manifest", fault)]


async def test_rewritten_manifest(engine: Open, tree: Path) -> None:
    """Another content of the manifest is another set: what it leaves out does not keep it back."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"x.manifest", b"a\nnever\n")
        await looks(rig, b"a", b"x.manifest")
        assert await states(rig, b"a") == ["settling"]
        put(tree, b"x.manifest", b"a\n")
        await looks(rig, b"x.manifest")
        assert await states(rig, b"a") == ["ready"]


async def test_two_manifests(engine: Open, tree: Path) -> None:
    """A member of two sets settles with the first that is complete, and counts in the other."""
    async with engine(**MANIFEST) as rig:
        for name in (b"a", b"b"):
            put(tree, name)
        put(tree, b"1.manifest", b"a\nb\n")
        put(tree, b"2.manifest", b"b\nc\n")
        await looks(rig, b"2.manifest", b"a", b"b", b"1.manifest")
        assert await states(rig, b"a", b"b") == ["ready"] * 2
        put(tree, b"c", b"x", 1_000)
        await looks(rig, b"c")
        assert await states(rig, b"a", b"b", b"c") == ["ready"] * 3


async def test_handled_members_count(engine: Open, tree: Path) -> None:
    """What was done, failed or is being handled with the content that is there has settled."""
    gate = Gate()
    async with engine(gate, **MANIFEST) as rig:
        names = [b"done", b"failed", b"running"]
        for name in names:
            put(tree, name)
        put(tree, b"1.manifest", b"\n".join(names))
        await looks(rig, *names, b"1.manifest")
        for name, verdict in ((b"done", "success"), (b"failed", "retry"), (b"running", None)):
            await rig.send(key_of(rig, name), "start")
            if verdict is not None:
                await gate.let_pass(Outcome(verdict))  # type: ignore[arg-type]
                await rig.state(key_of(rig, name), ["done", "failed"])
        await rig.service.inbox.idle()
        put(tree, b"new")
        put(tree, b"2.manifest", b"\n".join([*names, b"new"]))
        await looks(rig, b"new", b"2.manifest")
        assert await states(rig, *names, b"new") == ["done", "failed", "processing", "ready"]


async def test_handled_member_that_has_changed_since(engine: Open, tree: Path) -> None:
    """A member with another content than was done is not what has settled."""
    async with engine(steps=0, **MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"1.manifest", b"a\n")
        await looks(rig, b"a", b"1.manifest")
        assert await states(rig, b"a") == ["done"]
        put(tree, b"a", b"changed")
        put(tree, b"b")
        put(tree, b"2.manifest", b"a\nb\n")
        await looks(rig, b"b", b"2.manifest")
        assert await states(rig, b"a", b"b") == ["done", "settling"]
        await looks(rig, b"a")
        await looks(rig, b"a")
        assert await states(rig, b"a", b"b") == ["done", "done"]
        assert (await story(rig, key_of(rig, b"a")))[-2:] == ["change", "settle"]


async def test_held_member_keeps_all_back(engine: Open, tree: Path) -> None:
    """An operator's hand on one member holds the set; released, it goes on."""
    async with engine(**MANIFEST) as rig:
        for name in (b"a", b"b"):
            put(tree, name)
        await looks(rig, b"a", b"b")
        await rig.send(key_of(rig, b"b"), "hold")
        put(tree, b"x.manifest", b"a\nb\n")
        await looks(rig, b"x.manifest")
        assert await states(rig, b"a", b"b") == ["settling", "held"]
        await rig.send(key_of(rig, b"b"), "release")
        await looks(rig, b"b")
        assert await states(rig, b"a", b"b") == ["ready"] * 2


async def test_skipped_member_counts(engine: Open, tree: Path) -> None:
    """One that an operator takes for done does not keep the others back."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        with put(tree, b"b").open("ab"):
            put(tree, b"x.manifest", b"a\nb\n")
            await looks(rig, b"a", b"b", b"x.manifest")
            await rig.send(key_of(rig, b"b"), "skip")
            await rig.service.inbox.idle()
        assert await states(rig, b"a", b"b") == ["ready", "done"]


async def test_renamed_member(engine: Open, tree: Path) -> None:
    """A member that is renamed to its name in the manifest completes the set."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a.tmp")
        put(tree, b"b")
        put(tree, b"x.manifest", b"a\nb\n")
        await looks(rig, b"a.tmp", b"b", b"x.manifest")
        (tree / "a.tmp").rename(tree / "a")
        await rig.send(key_of(rig, b"a.tmp"), "look")
        await looks(rig, b"a")
        assert await states(rig, b"a", b"b") == ["ready"] * 2


async def test_adopted(engine: Open, tree: Path) -> None:
    """What was there before is adopted whatever its manifest says, and counts in a later one."""
    put(tree, b"old")
    put(tree, b"old.manifest", b"old\nmissing\n")
    async with engine(existing="adopt", **MANIFEST) as rig:
        await scanned(rig)
        rig.service.trees["incoming"].adopt_before = 0
        assert await states(rig, b"old") == ["done"]
        put(tree, b"new")
        put(tree, b"new.manifest", b"old\nnew\n")
        await looks(rig, b"new", b"new.manifest")
        assert await states(rig, b"new") == ["ready"]


async def test_adopted_after_its_set_was_examined(engine: Open, tree: Path) -> None:
    """A member that is adopted does not report itself as ready, and brings the set all the same."""
    put(tree, b"old")
    async with engine(existing="adopt", **MANIFEST) as rig:
        put(tree, b"new")
        put(tree, b"x.manifest", b"old\nnew\n")
        await looks(rig, b"new", b"x.manifest")
        assert await states(rig, b"new") == ["settling"]
        await looks(rig, b"old")
        assert await states(rig, b"old", b"new") == ["done", "ready"]


async def test_manifest_whose_hint_was_lost(engine: Open, tree: Path) -> None:
    """A file that is ready looks for manifests in its folder and above."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"d/e/a")
        put(tree, b"older.manifest", b"d/e/a\n", 1_000)
        put(tree, b"x.manifest", b"d/e/a\n")
        await looks(rig, b"d/e/a")
        assert await states(rig, b"d/e/a") == ["ready"]


async def test_manifest_that_a_scan_finds(engine: Open, tree: Path) -> None:
    """While files wait a scan tells of manifests; while none does they are not even read."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"x.manifest", b"a\n")
        await scanned(rig)
        known = rig.service.pipeline._conditions._sets._known
        assert not known
        put(tree, b"a", b"x", 1_000)
        (tree / "x.manifest").rename(tree.parent / "x.manifest")
        await looks(rig, b"a")
        (tree.parent / "x.manifest").rename(tree / "x.manifest")
        await scanned(rig)
        assert await states(rig, b"a") == ["ready"]


async def test_busy_member(engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody else has a member's path in hand the set waits, and holds no other path."""
    monkeypatch.setattr(sets, "SHORTEST_PAUSE", 0.001)
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"b")
        await looks(rig, b"a", b"b")
        put(tree, b"x.manifest", b"a\nb\n")
        locks = rig.service.pipeline._locks
        async with locks.hold(key_of(rig, b"b")):
            await rig.send(key_of(rig, b"x.manifest"), "look")
            known = rig.service.pipeline._conditions._sets._known
            async with asyncio.timeout(20):
                while key_of(rig, b"x.manifest") not in known:  # noqa: ASYNC110 - it is no event
                    await asyncio.sleep(0)
            assert known[key_of(rig, b"x.manifest")].verdict.kind == "busy"
            assert await rig.send(key_of(rig, b"a"), "look") is None
        await rig.state(key_of(rig, b"a"), ["ready"])
        await rig.service.inbox.idle()
        assert len(locks) == 0


@pytest.mark.parametrize("victim", [b"a", b"b", b"x.manifest"])
async def test_changed_while_checksums_are_read(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch, victim: bytes
) -> None:
    """What changes after it was examined does not settle, and keeps the others back."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"a")
        put(tree, b"b")
        text = f"{sha256(b'x')}  a\n{sha256(b'x')}  b\n".encode()
        await looks(rig, b"a", b"b")
        put(tree, b"x.manifest", text)
        reads = Reads(rig, monkeypatch)
        await rig.send(key_of(rig, b"x.manifest"), "look")
        for _ in range(2):
            await reads.begun.get()
        put(tree, victim, b"a\nc\n" if victim == b"x.manifest" else b"other", 1_000)
        reads.go_on.set()
        await rig.service.inbox.idle()
        await looks(rig, b"a", b"b", b"x.manifest")
        assert await states(rig, b"a", b"b") == ["settling"] * 2


async def test_with_content_identity(engine: Open, tree: Path) -> None:
    """Members settle with their digests; one that was only touched is done with a new manifest."""
    gate = Gate()
    async with engine(gate, identity="content", **MANIFEST) as rig:
        names = [b"a", b"b", b"c"]
        for name in names:
            put(tree, name, name)
        put(tree, b"x.manifest", b"\n".join(names))
        await looks(rig, *names, b"x.manifest")
        assert await states(rig, *names) == ["ready"] * 3
        assert [row.digest for row in await _rows(rig, names)] == [digest_of(n) for n in names]
        for name in names:
            await rig.send(key_of(rig, name), "start")
            await gate.let_pass()
            await rig.state(key_of(rig, name), ["done"])
        await rig.service.inbox.idle()
        (tree / "b").touch()
        (tree / "x.manifest").touch()
        await looks(rig, b"b", b"b", b"x.manifest")
        assert await states(rig, *names) == ["done"] * 3
        assert (await story(rig, key_of(rig, b"b")))[-2:] == ["change", "settle"]


async def test_with_markers(engine: Open, tree: Path) -> None:
    """Each member needs its marker as well, and all of them are used up with the set."""
    settle = Settle(quiet=0.0, manifest="*.manifest", marker="{name}.done")
    async with engine(settle=settle) as rig:
        for name in (b"a", b"b", b"a.done"):
            put(tree, name)
        put(tree, b"x.manifest", b"a\nb\n")
        await looks(rig, b"a", b"b", b"x.manifest")
        assert await states(rig, b"a", b"b") == ["settling"] * 2
        put(tree, b"b.done")
        await looks(rig, b"b.done")
        assert await states(rig, b"a", b"b") == ["ready"] * 2
        assert {path.name for path in tree.iterdir()} == {"a", "b", "x.manifest"}
        settles = [line for line in await rig.lines() if line["event"] == "settle"]
        assert {line["evidence"] for line in settles} == {"quiet+lease+marker+manifest"}


async def test_stop_while_checksums_are_read(engine: Open, tree: Path) -> None:
    """A stop does not wait for a terabyte; the files are found settling by the next start."""
    with (tree / "large").open("wb") as file:
        file.truncate(2**40)
    async with engine(**MANIFEST) as rig:
        await looks(rig, b"large")
        put(tree, b"x.manifest", f"{sha256(b'x')}  large\n".encode())
        await rig.send(key_of(rig, b"x.manifest"), "look")
        await rig.service.pipeline.drop_waiting()
        await rig.service.inbox.idle()
        assert await states(rig, b"large") == ["settling"]


async def test_news_at_the_last_moment(
    engine: Open, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is heard when an examination is over, and before that is known, is not lost."""
    async with engine(**MANIFEST) as rig:
        put(tree, b"x.manifest", b"a\n")
        its_sets = rig.service.pipeline._conditions._sets
        examine, verdicts = its_sets._deliveries.examine, []

        async def and_hear_more(delivery: Delivery, stood: Any) -> Verdict:
            verdicts.append(await examine(delivery, stood))
            if len(verdicts) == 1:
                asyncio.get_running_loop().call_soon(its_sets._examine, delivery)
            return verdicts[-1]

        monkeypatch.setattr(its_sets._deliveries, "examine", and_hear_more)
        await looks(rig, b"x.manifest")
        assert len(verdicts) == 2


async def test_many_hints_and_sets(engine: Open, tree: Path) -> None:
    """A hundred sets, all of whose files and manifests are told of at once in any order."""
    async with engine(steps=0, **MANIFEST) as rig:
        names = [b"%d-%d" % (s, m) for s in range(100) for m in range(5)]
        for name in names:
            put(tree, name)
        for number in range(100):
            members = b"\n".join(b"%d-%d" % (number, m) for m in range(5))
            put(tree, b"%d.manifest" % number, members)
        told = [*(b"%d.manifest" % n for n in range(0, 100, 2)), *names]
        told += [b"%d.manifest" % n for n in range(1, 100, 2)]
        for name in told:
            rig.service.inbox.put(Trigger(key_of(rig, name), "look", "hint"))
        await rig.service.inbox.idle()
        assert {row.state for row in await _rows(rig, names)} == {"done"}
