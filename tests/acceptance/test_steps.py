"""What an operator sees of steps: who waits, who runs, and which step is open."""

import json
from typing import Any

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


def test_waiting_is_told(site: Site) -> None:
    """`explain` says of a file that waits what its step allows."""
    effects, gate = site.effects(), site.gate()
    limits = "per_directory = 2\nmax_per_minute = 30"
    site.configure(site.watch(f'name = "load"\ncommand = [{site.script("held", HELD)}]\n{limits}'))
    for number in range(2):
        (site.tree / f"{number}").write_text("x")
    daemon = site.start().ready()
    waiting = {b"0": "1", b"1": "0"}[effects.next()]
    await_ready(daemon, 2)
    told = text(site, "explain", waiting)
    assert "place in step load, which takes 1 at a time, 2 of one folder, 30 a minute" in told
    gate.open(2)
    daemon.done("0", "1")


def test_open_step_is_told(site: Site) -> None:
    """`status` and `explain` say since when a step is open, why, and when a file tries it."""
    script = site.script("away", "echo 'connection refused' >&2; exit 69")
    breaker = 'unavailable = [69]\nbreaker = { after = 2, first = "1h", max = "1h" }'
    site.configure(site.watch(f'name = "load"\ncommand = [{script}]\n{breaker}'))
    for number in range(2):
        (site.tree / f"{number}").write_text("x")
    daemon = site.start().ready()
    daemon.line("daemon.step_open", failures=2)
    # The daemon writes it down for onlookers a moment later; each question takes a moment, too.
    while (found := status(site)["load"])["open_since"] is None:
        pass
    assert found["failures"] == 2
    assert "connection refused" in found["error"]
    answer = site.run("explain", "--config", str(site.config), "0")
    assert answer.returncode == 1
    assert "Step load is open for " in answer.stdout
    assert "after 2 failures in a row" in answer.stdout
    assert "connection refused" in answer.stdout
    assert "the next of them tries it in 59m" in answer.stdout
    rows = site.sql("SELECT state, failures, interruptions FROM files")
    assert rows == [("ready", 0, 0)] * 2


def test_open_step_stays_open(site: Site) -> None:
    """A start says so again, tries one file, and says when the step is closed."""
    gone = site.folder / "gone"
    gone.touch()
    script = site.script("away", f"test ! -e {gone} || exit 69")
    breaker = 'unavailable = [69]\nbreaker = { after = 2, first = "1s", max = "1h" }'
    site.configure(site.watch(f'name = "load"\ncommand = [{script}]\n{breaker}'))
    for number in range(2):
        (site.tree / f"{number}").write_text("x")
    daemon = site.start().ready()
    daemon.line("daemon.step_open", failures=2)
    while status(site)["load"]["open_since"] is None:
        pass
    daemon.kill()
    gone.unlink()
    daemon = site.start().ready()
    daemon.line("daemon.step_open", failures=2)
    daemon.line("daemon.step_closed")
    daemon.done("0", "1")
    events = [line["event"] for line in daemon.lines]
    assert events.index("daemon.step_open") < events.index("start")
    assert events[events.index("start") :].count("daemon.step_open") == 0


def test_places_of_the_daemon_are_shared(site: Site) -> None:
    """With one place for all, a watch with three files is through long before one with many."""
    (site.folder / "few").mkdir()
    alone = 'mkdir "$0.running" && sleep 0.05 && rmdir "$0.running"'
    script = site.script("alone", alone)
    step = f'[[watch.step]]\nname = "s"\ncommand = [{script}]\nconcurrency = 4\n'
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
    # Not by the lines: a place is free when a handler has ended, and not when that is on record.
    assert not daemon.having("fail")
