"""What an operator sees of steps: who waits, who runs, and which step is open."""

import json
import sqlite3
from contextlib import closing
from typing import Any

from daemon.engine.clock import now_us
from tests.acceptance.harness import RunningDaemon
from tests.acceptance.sites import Site

HELD = 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"; read x <"$GATE"'


def status(site: Site) -> dict[str, Any]:
    """The steps of the only watch by name."""
    answer = site.run("status", "--json", "--config", str(site.config))
    steps = json.loads(answer.stdout)["watches"][0]["steps"]
    return {step["name"]: step for step in steps}


def await_ready(daemon: RunningDaemon, count: int) -> None:
    daemon.wait_for(
        lambda lines: sum(line.get("to_state") == "ready" for line in lines) >= count, "ready"
    )


def text(site: Site, *arguments: str) -> str:
    return site.run(*arguments, "--config", str(site.config)).stdout


def test_status_counts_by_step(site: Site) -> None:
    """How many files wait for each step and are in it; nothing runs once the daemon is down."""
    effects, gate = site.effects(), site.gate()
    steps = (
        f'name = "{name}"\ncommand = [{site.script(name, body)}]\n'
        for name, body in (("load", HELD), ("index", "true"))
    )
    site.configure(site.watch(*steps))
    for number in range(3):
        (site.tree / f"{number}").write_text("x")
    daemon = site.start().ready()
    effects.next()
    await_ready(daemon, 3)
    found = status(site)
    assert list(found) == ["load", "index"]
    assert (found["load"]["waiting"], found["load"]["running"]) == (2, 1)
    assert (found["index"]["waiting"], found["index"]["running"]) == (0, 0)
    assert found["load"]["open_since"] is None
    assert "w      load   2        1        ok" in text(site, "status")
    gate.open(3)
    daemon.done("0", "1", "2")
    daemon.stop()
    assert status(site)["load"]["running"] == 0
    assert "w      load   0        0        -" in text(site, "status")


def test_open_step_is_told(site: Site) -> None:
    """`status` and `explain` say since when a step is open, why, and when a file tries it."""
    effects, gate = site.effects(), site.gate()
    limits = "per_directory = 2\nmax_per_minute = 30"
    site.configure(site.watch(f'name = "load"\ncommand = [{site.script("held", HELD)}]\n{limits}'))
    for number in range(2):
        (site.tree / f"{number}").write_text("x")
    daemon = site.start().ready()
    effects.next()
    await_ready(daemon, 2)
    waiting = "1" if daemon.state("0") == "processing" else "0"
    told = text(site, "explain", waiting)
    assert "place in step load, which takes 1 at a time, 2 of one folder, 30 a minute" in told
    # As the daemon writes it down where a step is open.
    standing = {
        "open_since": now_us() - 3_600_000_000,
        "failures": 7,
        "error": "connection refused",
        "probe_at": now_us() + 250_000_000,
    }
    with closing(sqlite3.connect(site.database)) as db, db:
        db.execute("UPDATE watches SET steps = ?", (json.dumps({"load": standing}),))
    answer = site.run("explain", "--config", str(site.config), waiting)
    assert answer.returncode == 1
    assert "Step load is open for 1h, after 7 failures in a row" in answer.stdout
    assert "connection refused" in answer.stdout
    assert "the next of them tries it in 4m" in answer.stdout
    assert (status(site)["load"]["failures"], status(site)["load"]["error"]) == (
        7,
        "connection refused",
    )
    assert "open for 1h, next try in 4m" in text(site, "status")
    gate.open(2)
    daemon.done("0", "1")
    daemon.stop()


def test_places_of_the_daemon_are_shared(site: Site) -> None:
    """With one place for all, a watch with three files is through long before one with many."""
    (site.folder / "few").mkdir()
    step = '[[watch.step]]\nname = "s"\ncommand = ["true"]\nconcurrency = 4\n'
    few = f'[[watch]]\nname = "few"\npath = "few"\nexisting = "process"\n{step}'
    site.configure(f"{site.watch()}\n{step}\n{few}", daemon="concurrency = 1")
    for number in range(60):
        (site.tree / f"{number}").write_text("x")
    for number in range(3):
        (site.folder / "few" / f"{number}").write_text("x")
    daemon = site.start().ready()
    daemon.nth(63, "succeed")
    daemon.stop()
    order = [line["watch"] for line in daemon.having("start")]
    last = max(at for at, watch in enumerate(order) if watch == "few")
    assert order[last:].count("w") > 10
    running = 0
    for line in daemon.lines:
        running += {"start": 1, "succeed": -1}.get(line["event"], 0)
        assert running <= 1
