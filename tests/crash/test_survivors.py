"""Handlers that outlive a killed daemon: never two of them on one file, whatever the step wants."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.sites import Effects, Site

# It proves with a lock that it is alone with its file, and answers TERM by going on for a while.
# What the shell says of a child that was ended would end it: nobody reads its stderr any more.
HANDLER = """
exec 2>/dev/null
lock="$LOCKS/$(basename "$TREEWARDEN_PATH")"
(set -C; : >"$lock") 2>/dev/null || { echo "two at once" >"$EFFECTS"; exit 1; }
trap 'echo "asked" >"$EFFECTS"' TERM
echo "began $TREEWARDEN_VERSION" >"$EFFECTS"
while [ ! -e "$LOCKS/go" ] && [ "$TREEWARDEN_VERSION" -lt 4 ]; do sleep 0.02; done
rm "$lock"
echo "ended $TREEWARDEN_VERSION" >"$EFFECTS"
"""
FILES = 3


@pytest.mark.parametrize("manner", ["wait", "end"])
@pytest.mark.parametrize("kind", ["alone", "batch"])
def test_never_two_at_once(site: Site, manner: str, kind: str) -> None:
    """The second daemon starts a file only when the first one's handler has let go of it."""
    effects = site.effects()
    locks = site.folder / "locks"
    locks.mkdir()
    site.environment["LOCKS"] = str(locks)
    step = f'name = "s"\ncommand = [{site.script("handler", script_of(kind))}{ARGUMENTS[kind]}]\n'
    site.configure(site.watch(f'{step}kill_after = "60s"\non_restart = "{manner}"\n{KEYS[kind]}'))
    daemon = site.start().ready()
    for number in range(FILES):
        (site.tree / f"file{number}").write_text("x")
    began = [effects.next() for _ in range(FILES if kind == "alone" else 1)]
    assert all(report.startswith(b"began") for report in began)
    daemon.kill()
    second = site.start()
    told = second.line("daemon.survivor", action=manner)
    assert (told["watch"], told["step"]) == ("w", "s")
    second.ready()
    if manner == "end":
        # Asked, but it goes on, and so nobody else is started on its files.
        while effects.next() != b"asked":
            assert effects.seen[-1].startswith(b"began")
    assert b"two at once" not in effects.rest()
    (locks / "go").touch()
    second.wait_for(
        lambda _: site.sql("SELECT count(*) FROM files WHERE state = 'done'") == [(FILES,)], "end"
    )
    second.stop()
    assert b"two at once" not in [*effects.seen, *effects.rest()]


def test_two_batches(site: Site) -> None:
    """Nobody can tell whose batch a file was in: it waits for all that may have it."""
    effects, gates = site.effects(), {name: site.gate(name) for name in ("FIRST", "SECOND")}
    site.environment["GATES"] = str(site.folder)
    # Each takes a gate of its own, and the third run is of the second daemon.
    body = (
        'cd "$GATES"; exec 2>/dev/null\n'
        "if mkdir one; then gate=first; elif mkdir two; then gate=second; fi\n"
        'echo "$gate $$ $#" >"$EFFECTS"; [ -z "$gate" ] || read _ <"$gate"'
    )
    step = f'name = "s"\ncommand = [{site.script("batch", body)}, "{{paths}}"]\nbatch = 2'
    site.configure(site.watch(f'{step}\nconcurrency = 2\non_restart = "wait"'))
    # All are there before the daemon is: those that are ready at once fill two batches. One after
    # the other they may be three, of which the third is not begun, and is known to nobody.
    for number in range(4):
        (site.tree / f"file{number}").write_text("x")
    daemon = site.start().ready()
    began = [effects.next().split() for _ in range(2)]
    assert [count for *_, count in began] == [b"2", b"2"]
    pids = {name: pid for name, pid, _ in began}
    assert pids.keys() == {b"first", b"second"}
    daemon.wait_for(lambda _: site.sql(PROCESSING) == [(4,)], "two batches")
    daemon.kill()
    second = site.start().ready()
    # In the order of their starts, which is that of the record.
    early, late = sorted(pids, key=lambda name: int(pids[name]))
    gates[early.decode().upper()].open()
    second.line("daemon.survivor_gone", pid=int(pids[early]))
    # Had the others been let go on with that, they would have been started before this one.
    (site.tree / "later").write_text("x")
    second.done("later")
    assert site.sql(PROCESSING) == [(4,)]
    gates[late.decode().upper()].open()
    second.wait_for(lambda _: site.sql(DONE) == [(5,)], "end of all files")
    assert [report for report in effects.rest() if not report.startswith(b" ")] == []
    second.stop()


PROCESSING = "SELECT count(*) FROM files WHERE state = 'processing'"
DONE = "SELECT count(*) FROM files WHERE state = 'done'"


TALKS = """
[ "$TREEWARDEN_ATTEMPT" = 2 ] && exit 0
echo "began" >"$EFFECTS"; read _ <"$GATE"
echo "a word" >&2; %s
echo "alone" >"$EFFECTS"; read _ <"$GATE"
head -c 1000000 /dev/zero >&2; %s
echo "ended" >"$EFFECTS"
"""
ANSWERS = """
while read line; do case "$line" in
    *ping*) echo '{"pong":1}';;
    *'"attempt":2'*) echo '{"id":2,"outcome":"success"}';;
    *) TREEWARDEN_ATTEMPT=1; %s
    echo '{"id":2,"outcome":"success"}'; echo "answered" >"$EFFECTS";;
esac; done
"""


@pytest.mark.parametrize("kind", ["command", "result", "worker"])
def test_words_of_a_survivor(site: Site, kind: str) -> None:
    """One that is waited for is neither ended nor held up by what it says to nobody."""
    effects, gate = site.effects(), site.gate()
    body = TALKS % (("echo 1", "head -c 1000000 /dev/zero") if kind == "result" else (":", ":"))
    if kind == "worker":
        script = site.script("talks", ANSWERS % body)
        step = f'name = "s"\nworker = [{script}]\nprocesses = 1'
    else:
        step = f'name = "s"\ncommand = [{site.script("talks", body)}]'
    if kind == "result":
        step += '\nresult = "stdout"'
    site.configure(site.watch(f'{step}\non_restart = "wait"\nattempts = 1'))
    daemon = site.start().ready()
    (site.tree / "file").write_text("x")
    assert effects.next() == b"began"
    daemon.kill()
    gate.open()
    assert effects.next() == b"alone"
    second = site.start().ready()
    second.line("daemon.survivor", action="wait")
    gate.open()
    assert effects.next() == b"ended"
    if kind == "worker":
        assert effects.next() == b"answered"
    second.line("daemon.survivor_gone")
    # The row shows its attempt between two commits only.
    second.line("start", attempt=2)
    second.stop()


def is_running(pid: int) -> bool:
    """Whoever adopted it may not have waited for it yet: that is not running."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


ARGUMENTS = {"alone": "", "batch": ', "{paths}"'}
KEYS = {"alone": f"concurrency = {FILES}", "batch": "batch = 10"}


def script_of(kind: str) -> str:
    if kind == "alone":
        return HANDLER
    return HANDLER.replace('"$TREEWARDEN_PATH"', '"$1"').replace(
        '"$TREEWARDEN_VERSION" -lt 4', '! -e "$LOCKS/go"'
    )


def outliving(site: Site, effects: Effects, body: str, keys: str) -> list[int]:
    """Return the processes that the handler of `file` tells of; its daemon is killed then."""
    site.configure(site.watch(f'name = "s"\ncommand = [{site.script("handler", body)}]\n{keys}'))
    daemon = site.start().ready()
    (site.tree / "file").write_text("x")
    pids = [int(pid) for pid in effects.next().split()]
    daemon.kill()
    return pids


def test_killed_in_the_end(site: Site) -> None:
    """Who ignores TERM is killed after `kill_after`, with everything that it has started."""
    effects = site.effects()
    body = 'trap "" TERM; setsid sleep 600 & echo "$$ $!" >"$EFFECTS"; wait'
    first_time = f'[ "$TREEWARDEN_ATTEMPT" = 1 ] || exit 0\n{body}'
    pids = outliving(site, effects, first_time, 'kill_after = "100ms"')
    second = site.start().ready()
    second.wait_for(lambda _: site.sql("SELECT state FROM files") == [("done",)], "end of the file")
    assert not [pid for pid in pids if is_running(pid)]
    second.stop()


def told(site: Site, *question: str) -> subprocess.CompletedProcess[str]:
    return site.run(*question, "--config", str(site.config))


def test_survivor_is_told(site: Site) -> None:
    """`explain` and `status` name who still has a file, since when, and what can be done."""
    effects, gate = site.effects(), site.gate()
    body = 'echo $$ >"$EFFECTS"; [ "$TREEWARDEN_ATTEMPT" = 2 ] || read _ <"$GATE"'
    (pid,) = outliving(site, effects, body, 'on_restart = "wait"')
    second = site.start().ready()
    second.line("daemon.survivor", pid=pid)
    # The daemon writes it down for onlookers a moment later; each question takes a moment, too.
    while (answer := told(site, "explain", "file")).returncode == 0:
        pass
    name, attempt, who, why, remedy = answer.stdout.splitlines()
    assert name == "file of w: processing"
    assert attempt.startswith("  Attempt 1 of step s runs, for ")
    assert re.fullmatch(
        rf"  Pid {pid}, begun \d+s ago, has outlived a daemon that was killed, with it\.", who
    )
    assert 'on_restart = "wait"' in why
    assert remedy.endswith(f"kill -- -{pid}")
    status = told(site, "status").stdout
    assert re.search(
        rf"w  pid {pid}, begun \d+s ago, .* with 1 file of step s, and is waited for$",
        status,
        re.MULTILINE,
    )
    (watch,) = json.loads(told(site, "status", "--json").stdout)["watches"]
    (survivor,) = watch["steps"][0]["survivors"]
    assert (survivor["pid"], survivor["action"]) == (pid, "wait")
    subprocess.run(remedy.split("it has started: ")[1], shell=True, check=True)  # noqa: S602 - as told
    second.done("file")
    while json.loads(told(site, "status", "--json").stdout)["watches"][0]["steps"][0]["survivors"]:
        pass
    gate.open()
    second.stop()


def test_killed_again_meanwhile(site: Site) -> None:
    """A third daemon knows of the survivor that the second one was still waiting for."""
    effects, gate = site.effects(), site.gate()
    body = '[ "$TREEWARDEN_ATTEMPT" = 1 ] || exit 0\necho $$ >"$EFFECTS"; read _ <"$GATE"'
    (pid,) = outliving(site, effects, body, 'on_restart = "wait"')
    for end in (signal.SIGKILL, signal.SIGTERM):
        next_one = site.start().ready()
        assert next_one.line("daemon.survivor")["pid"] == pid
        assert site.sql("SELECT state FROM files") == [("processing",)]
        os.kill(next_one.process.pid, end)
        next_one.process.wait()
    last = site.start().ready()
    assert last.line("daemon.survivor")["pid"] == pid
    gate.open()
    last.wait_for(lambda _: site.sql("SELECT state FROM files") == [("done",)], "end of the file")
    last.stop()
