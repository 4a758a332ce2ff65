"""What the real daemon does at its end, and what it finds at its next start."""

import os
import signal
import sys

import pytest

from tests.acceptance.sites import Site

NAMES = ("running", "waiting")
IGNORING = """if True:
    import os, signal, sys
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.execv(sys.argv[1], sys.argv[1:])
"""
REPORT = 'echo "$TREEWARDEN_RELPATH $TREEWARDEN_ATTEMPT" >"$EFFECTS"'


def test_only_what_changed_while_it_was_down_costs_anything(site: Site) -> None:
    """Created, changed and removed files are found; the others get no line and no transition."""
    site.configure(site.watch('name = "s"\ncommand = ["/bin/true"]'))
    kept = [f"d{number % 3}/kept{number}" for number in range(30)]
    for name in (*kept, "removed", "changed", "folder/sub/inside", "replaced"):
        (site.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (site.tree / name).write_text("1")
    first = site.start()
    first.done(*kept, "removed", "changed", "folder/sub/inside", "replaced")
    first.stop()
    ((before,),) = site.sql("SELECT max(seq) FROM transitions")
    (site.tree / "removed").unlink()
    (site.tree / "changed").write_text("22")
    (site.tree / "replaced").unlink()
    (site.tree / "replaced").mkdir()
    (site.tree / "folder").rename(site.folder / "elsewhere")
    for name in ("created", "replaced/by/folder", "new/deep/er"):
        (site.tree / name).parent.mkdir(parents=True, exist_ok=True)
        (site.tree / name).touch()
    os.utime(site.tree / "d0", (1, 1))
    (site.tree / kept[0]).chmod(0o600)
    second = site.start().ready()
    second.done("created", "changed", "replaced/by/folder", "new/deep/er")
    for name in ("removed", "replaced", "folder/sub/inside"):
        second.line("vanish", path=name)
    second.stop()
    touched = {line["path"] for line in second.lines if "from_state" in line}
    assert touched == {
        "created",
        "changed",
        "removed",
        "replaced",
        "folder/sub/inside",
        "replaced/by/folder",
        "new/deep/er",
    }
    rows = site.sql(
        "SELECT DISTINCT name FROM transitions t JOIN files f ON f.id = file_id WHERE seq > ?",
        before,
    )
    assert not [name for (name,) in rows if name.startswith(b"kept")]
    reconciled = second.line("daemon.reconciled")
    assert (reconciled["changed"], reconciled["missing"]) == (1, 3)
    # The folder that took the place of a file may be looked into on its own, before the scan.
    assert reconciled["new"] in {2, 3}


def test_an_undisturbed_tree_costs_no_line_at_the_next_start(site: Site) -> None:
    """The second run over the same files writes lines about itself only, and no transition."""
    site.configure(site.watch())
    for number in range(20):
        (site.tree / str(number)).touch()
    first = site.start()
    first.done(*map(str, range(20)))
    first.stop()
    before = site.sql("SELECT max(seq), count(*) FROM transitions")
    second = site.start().ready()
    second.stop()
    told = [line["event"] for line in second.lines]
    assert told == ["daemon.started", "daemon.ready", "daemon.stopping", "daemon.stopped"]
    assert site.sql("SELECT max(seq), count(*) FROM transitions") == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_handler_finish(site: Site, number: int) -> None:
    """No new start after it; what runs is finished and recorded; exit 0."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", f'{REPORT}; read x <"$GATE"')
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    assert effects.next() == b"a 1"
    (site.tree / "b").touch()
    daemon.wait_for(lambda _: daemon.state("b") == "ready", "b ready")
    daemon.signal(number)
    daemon.line("daemon.stopping", running=1)
    gate.open()
    assert daemon.wait() == 0
    assert daemon.state("a") == "done"
    assert daemon.state("b") == "ready"
    again = site.start()
    gate.open()
    again.done("b")
    again.stop()
    assert not again.of("a")


def test_signals_that_whoever_starts_it_ignores_or_blocks(site: Site) -> None:
    """Ends of handlers are seen, TERM reaches them and us, and a terminal that is closed does not.

    What is ignored or blocked stays so in a program that is started: the last is what nohup does.
    """
    script = site.script("free", "grep -q '^SigBlk:.0*$' /proc/self/status")
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]'))
    daemon = site.start(wrapper=(sys.executable, "-c", IGNORING)).ready()
    for name in ("a", "b"):
        (site.tree / name).touch()
        daemon.done(name)
        daemon.signal(signal.SIGHUP)
    assert daemon.having("succeed") != []
    daemon.stop()


def test_a_handler_that_outlives_the_drain_is_interrupted_and_run_again(site: Site) -> None:
    """Its group is ended, its file is `ready` again at no cost, and the next start runs it."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", f'{REPORT}; read x <"$GATE"')
    step = f'name = "s"\ncommand = [{script}]\nkill_after = "100ms"'
    site.configure(site.watch(step, interruptions=1), daemon='drain = "100ms"')
    daemon = site.start().ready()
    (site.tree / "a").touch()
    assert effects.next() == b"a 1"
    daemon.stop()
    interrupted = daemon.line("interrupt", path="a")
    assert (interrupted["to_state"], interrupted["cause"]) == ("ready", "shutdown")
    assert not site.orphans()
    again = site.start()
    assert effects.next() == b"a 2"
    gate.open()
    again.done("a")
    again.stop()


def test_a_second_signal_hurries(site: Site) -> None:
    """Neither the drain nor the time to end is waited for, though the handler ignores TERM."""
    effects = site.effects()
    script = site.script("stubborn", f'trap "" TERM; {REPORT}; while :; do sleep 1; done')
    step = f'name = "s"\ncommand = [{script}]\nkill_after = "1h"'
    site.configure(site.watch(step), daemon='drain = "1h"')
    daemon = site.start().ready()
    (site.tree / "a").touch()
    effects.next()
    daemon.signal(signal.SIGTERM)
    daemon.line("daemon.stopping")
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert daemon.state("a") == "ready"
    assert not site.orphans()


def test_what_a_killed_daemon_was_handling_is_interrupted_and_run_again(site: Site) -> None:
    """A crash counts: after as many as `interruptions` allows, the file is quarantined."""
    effects = site.effects()
    script = site.script("hang", f"{REPORT}; exec sleep 600")
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]', interruptions=2))
    (site.tree / "a").touch()
    for attempt in (1, 2):
        daemon = site.start()
        assert effects.next() == f"a {attempt}".encode()
        daemon.kill()
        site.end_orphans()
    last = site.start().ready()
    # The lines of the second run may come once more: they were perhaps still owed.
    assert last.line("interrupt", path="a", to_state="quarantined")["cause"] == "crash"
    last.stop()
    assert not last.having("start", attempt=3)


def test_a_retry_that_was_due_while_it_was_down_comes_at_the_start(site: Site) -> None:
    """The time of a retry survives a restart; the failures are counted on."""
    effects = site.effects()
    script = site.script("fail", f"{REPORT}; exit 1")
    backoff = 'backoff = { first = "300ms", factor = 1, jitter = 0 }\nattempts = 2'
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]\n{backoff}'))
    (site.tree / "a").touch()
    first = site.start()
    first.line("fail", path="a", to_state="failed")
    first.stop()
    second = site.start()
    second.line("fail", path="a", to_state="quarantined")
    second.stop()
    assert [effects.next(), effects.next()] == [b"a 1", b"a 2"]


def test_all_steps_taken_away_leave_no_file_behind(site: Site) -> None:
    """A watch that now only tracks: what was being handled, waited or failed is done."""
    script = site.script("hang", "exec sleep 600")
    fails = site.script("fails", "exit 1")
    slow = f'name = "a"\ncommand = [{script}]'
    failing = f'name = "f"\ncommand = [{fails}]\nbackoff = {{ first = "1h", max = "1h" }}'
    site.configure(f"{site.watch(slow)}\n{site.watch(failing, name='v', path='v')}")
    (site.folder / "v").mkdir()
    for path in (site.tree / "running", site.tree / "waiting", site.folder / "v/failed"):
        path.touch()
    daemon = site.start()
    daemon.line("fail", path="failed")
    daemon.wait_for(lambda _: {daemon.state(n) for n in NAMES} == {"processing", "ready"}, "states")
    daemon.kill()
    site.end_orphans()
    site.configure(f"{site.watch()}\n{site.watch(name='v', path='v')}")
    again = site.start()
    again.done(*NAMES, "failed")
    again.stop()
