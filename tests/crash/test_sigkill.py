"""SIGKILL at any moment loses nothing: the real daemon, killed over and over as files arrive."""

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

from msgspec.structs import replace

from daemon.core.lifecycle import LEGAL
from daemon.core.model import Key
from daemon.engine.jobs import idempotency_key
from daemon.store.queries import FILE_COLUMNS
from daemon.store.rows import row_of
from tests.acceptance.harness import Line, RunningDaemon
from tests.acceptance.sites import Site

ROUNDS = 30
# Seconds between two acts of the writer: some 100 in the life of a daemon.
PACE = 0.005
SEED = int(os.environ.get("TREEWARDEN_CRASH_SEED", "0")) or random.SystemRandom().getrandbits(32)
HANDLER = 'printf "%s %s\\n" "$TREEWARDEN_KEY" "$TREEWARDEN_RELPATH" >>"$TREEWARDEN_EFFECTS"'


class Writer:
    """Makes, changes and removes files the way programs do; the same for the same seed."""

    def __init__(self, tree: Path, seed: int) -> None:
        self._tree = tree
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
        self._count = 0

    def work(self, stop: threading.Event) -> None:
        """Act at a steady pace until told to stop."""
        while not stop.wait(PACE):
            self.act()

    def act(self) -> None:
        act = self._random.choices(
            (self._create, self._create_deep, self._rename_in, self._change, self._remove),
            (5, 3, 3, 4, 2),
        )[0]
        act()

    def _name(self, folder: str = "") -> Path:
        self._count += 1
        return self._tree / folder / f"f{self._count}"

    def _files(self) -> list[Path]:
        return sorted(path for path in self._tree.rglob("*") if path.is_file())

    def _create(self) -> None:
        """In two writes, so that there is a half to be caught."""
        with self._name().open("wb", buffering=0) as file:
            file.write(b"half ")
            file.write(b"whole " * self._random.randrange(1, 50))

    def _create_deep(self) -> None:
        deep = "/".join(
            f"d{self._random.randrange(3)}" for _ in range(self._random.randrange(1, 4))
        )
        path = self._name(deep)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"deep " * self._random.randrange(1, 50))

    def _rename_in(self) -> None:
        """A whole folder appears at once: of what is in it no event tells."""
        self._count += 1
        made = self._tree.parent / "made"
        (made / "sub").mkdir(parents=True)
        for number in range(self._random.randrange(1, 4)):
            (made / "sub" / f"g{number}").write_bytes(b"moved")
        made.rename(self._tree / f"moved{self._count}")

    def _change(self) -> None:
        if files := self._files():
            with self._random.choice(files).open("ab") as file:
                file.write(b"more " * self._random.randrange(1, 9))

    def _remove(self) -> None:
        if files := self._files():
            self._random.choice(files).unlink()


def kill_at_random(daemon: RunningDaemon, chance: random.Random) -> None:
    """After a random number of lines, or a random time, whichever comes first."""
    count, seconds = chance.randrange(1, 120), chance.uniform(0.02, 1.0)
    with daemon._news:
        daemon._news.wait_for(lambda: len(daemon.lines) >= count, seconds)
    daemon.kill()


def rounds(site: Site) -> Iterator[Line]:
    """All the lines of all the killed daemons."""
    chance = random.Random(SEED)  # noqa: S311 - as above
    writer = Writer(site.tree, SEED)
    for _ in range(ROUNDS):
        daemon = site.start()
        stop = threading.Event()
        arriving = threading.Thread(target=writer.work, args=(stop,))
        arriving.start()
        kill_at_random(daemon, chance)
        stop.set()
        arriving.join()
        yield from daemon.lines
        for _ in range(chance.randrange(6)):
            writer.act()


def finish(site: Site) -> list[Line]:
    """One last run, until every file on the disk is done."""
    daemon = site.start().ready()
    wanted = len(on_disk(site))
    query = (
        "SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM files WHERE state != 'gone'"
    )
    daemon.wait_for(lambda _: site.sql(query) == [(wanted, wanted)], "end of all files", 60.0)
    return daemon.stop()


def on_disk(site: Site) -> set[bytes]:
    root = os.fsencode(site.tree)
    return {
        os.path.relpath(os.path.join(folder, name), root)  # noqa: PTH118 - paths of bytes
        for folder, _, names in os.walk(root)
        for name in names
    }


def test_sigkill_at_random_moments_loses_nothing(site: Site) -> None:
    """Thirty times: every file ends `done`, on a lawful path, with its lines and its effect."""
    print(f"TREEWARDEN_CRASH_SEED={SEED}")  # noqa: T201 - shown with a failure, to repeat it
    effects = site.folder / "effects"
    effects.touch()
    site.environment["TREEWARDEN_EFFECTS"] = str(effects)
    step = f'name = "s"\ncommand = [{site.script("effect", HANDLER)}]\nattempts = 1000000'
    site.configure(site.watch(f"{step}\nconcurrency = 4", interruptions=1000))
    lines = [*rounds(site), *finish(site)]
    assert_every_file_is_done(site)
    assert_lives_are_lawful(site)
    assert_every_transition_has_its_line(site, lines)
    assert_every_content_had_its_effect(site, effects)


def assert_every_file_is_done(site: Site) -> None:
    rows = [row_of(values) for values in site.sql(f"SELECT {FILE_COLUMNS} FROM files")]  # noqa: S608
    assert {row.state for row in rows} <= {"done", "gone"}
    assert {row.key.path for row in rows if row.state == "done"} == on_disk(site)
    for row in rows:
        if row.state == "done" and row.seen is not None:
            st = (site.tree / os.fsdecode(row.key.path)).stat()
            assert (row.seen.size, row.seen.mtime_ns) == (st.st_size, st.st_mtime_ns)
            assert row.done == row.seen.content


def assert_lives_are_lawful(site: Site) -> None:
    """Legal edges only, each from where the last one led; versions from 1 without a gap."""
    lives: dict[int, list[tuple[int, str, str, str]]] = {}
    query = "SELECT file_id, version, from_state, trigger, to_state FROM transitions ORDER BY seq"
    for file_id, version, *edge in site.sql(query):
        lives.setdefault(file_id, []).append((version, *edge))
    for life in lives.values():
        assert [version for version, *_ in life] == list(range(1, len(life) + 1))
        assert {(before, event, after) for _, before, event, after in life} <= LEGAL
        reached = ["untracked", *(after for *_, after in life)]
        assert [before for _, before, _, _ in life] == reached[:-1]
    ends = {file_id: (life[-1][0], life[-1][3]) for file_id, life in lives.items()}
    rows = {id_: end for id_, *end in site.sql("SELECT id, version, state FROM files")}
    assert {id_: tuple(end) for id_, end in rows.items()} == ends


def assert_every_transition_has_its_line(site: Site, lines: list[Line]) -> None:
    """In the logs of all the runs together, and it says what the database says."""
    told = {
        (line["file_id"], line["version"], line["from_state"], line["event"], line["to_state"])
        for line in lines
        if line.get("outcome") == "success"
    }
    query = "SELECT file_id, version, from_state, trigger, to_state FROM transitions"
    assert set(site.sql(query)) == told
    assert not [line for line in lines if line.get("outcome") == "failed"]


def assert_every_content_had_its_effect(site: Site, effects: Path) -> None:
    """The handler has run at least once with the key of what the file holds in the end."""
    keys = {line.split()[0].decode() for line in effects.read_bytes().splitlines()}
    for values in site.sql(f"SELECT {FILE_COLUMNS} FROM files WHERE state = 'done'"):  # noqa: S608
        row = replace(row_of(values), step="s")
        assert idempotency_key(Key("w", row.key.path), row) in keys, row
