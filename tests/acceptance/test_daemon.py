"""The life of files in the real daemon, from a drop to the last line."""

import os
from pathlib import Path

from tests.acceptance.harness import Line, parse
from tests.acceptance.sites import Site

FAST = 'backoff = { first = "10ms", factor = 2.0, max = "1s", jitter = 0 }'


def events(lines: list[Line]) -> list[tuple[str, str]]:
    return [(line["event"], line["to_state"]) for line in lines]


def test_a_dropped_file_goes_through_its_life_line_by_line(site: Site) -> None:
    """Each transition is one line, in order, versions without gaps, with the documented fields."""
    site.configure(site.watch('name = "load"\ncommand = ["/bin/cat", "{path}"]'))
    daemon = site.start().ready()
    (site.tree / "a.txt").write_text("hello")
    daemon.done("a.txt")
    daemon.stop()
    lines = daemon.of("a.txt")
    assert events(lines) == [
        ("discover", "settling"),
        ("settle", "ready"),
        ("start", "processing"),
        ("succeed", "done"),
    ]
    assert [line["version"] for line in lines] == [1, 2, 3, 4]
    assert {line["file_id"] for line in lines} == {1}
    assert all(line["watch"] == "w" and line["node"] == "test" for line in lines)
    assert all(line["outcome"] == "success" and line["size"] == 5 for line in lines)
    assert len({line["attempt_id"] for line in lines}) == 4
    assert lines[0]["due_at"] > lines[0]["timestamp"]
    assert lines[1]["evidence"] in {"quiet+lease", "quiet"}
    assert lines[2]["step"] == lines[3]["step"] == "load"
    assert lines[2]["attempt"] == lines[3]["attempt"] == 1
    assert lines[3]["duration_ms"] > 0


def test_the_lines_of_a_daemon_are_about_files_and_itself_only(site: Site) -> None:
    """A handler's standard output never gets among the lines; the first and last are as told."""
    chatty = site.script("chatty", 'echo "{\\"event\\": \\"forged\\"}"; echo noise')
    site.configure(site.watch(f'name = "s"\ncommand = [{chatty}]'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    daemon.done("a")
    lines = daemon.stop()
    assert lines[0]["event"] == "daemon.started"
    assert lines[0]["pid"] == daemon.pid
    assert [line["event"] for line in lines[-2:]] == ["daemon.stopping", "daemon.stopped"]
    assert not daemon.having("forged")


def test_the_handler_gets_the_file_in_its_environment(site: Site) -> None:
    """The seven variables; the key stays the same over attempts, and differs between contents."""
    effects = site.effects()
    report = site.script(
        "report",
        'printf "%s|%s|%s|%s|%s|%s|%s|%s\\n" "$TREEWARDEN_PATH" "$TREEWARDEN_RELPATH" '
        '"$TREEWARDEN_WATCH" "$TREEWARDEN_STEP" "$TREEWARDEN_ATTEMPT" "$TREEWARDEN_FILE_ID" '
        '"$TREEWARDEN_KEY" "$*" >"$EFFECTS"; [ "$TREEWARDEN_ATTEMPT" -gt 1 ]',
    )
    arguments = '"{path}", "--as={relpath}", "{{x}}", "{name} {watch} {step}", "%s"'
    site.configure(site.watch(f'name = "load"\ncommand = [{report}, {arguments}]\n{FAST}'))
    daemon = site.start().ready()
    path = site.tree / "d"
    path.mkdir()
    (path / "a b.txt").write_text("1")
    first, second = (effects.next().decode().split("|") for _ in range(2))
    daemon.done("d/a b.txt")
    (path / "a b.txt").write_text("22")
    third = effects.next().decode().split("|")
    daemon.nth(2, "succeed", path="d/a b.txt")
    daemon.stop()
    absolute = str(path / "a b.txt")
    argv = f"{absolute} --as=d/a b.txt {{x}} a b.txt w load %s"
    assert first[:6] == [absolute, "d/a b.txt", "w", "load", "1", "1"]
    assert first[7] == argv
    assert second[4] == "2"
    assert first[6] == second[6] != third[6]


def test_the_exit_status_is_the_verdict(site: Site) -> None:
    """65 quarantines at once; 1 is retried with growing waits until attempts end; then one works.

    The tail of stderr is the line's error.
    """
    script = site.script(
        "judge",
        'case "$TREEWARDEN_RELPATH" in\n'
        "never) echo refused by law >&2; exit 65;;\n"
        "bad) echo trouble >&2; exit 1;;\n"
        'third) [ "$TREEWARDEN_ATTEMPT" -ge 3 ];;\n'
        "shot) kill -9 $$;;\n"
        "esac",
    )
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]\nattempts = 3\n{FAST}'))
    daemon = site.start().ready()
    for name in ("never", "bad", "third", "shot"):
        (site.tree / name).touch()
    never = daemon.line("reject", path="never")
    bad = daemon.line("fail", path="bad", to_state="quarantined")
    shot = daemon.line("fail", path="shot", to_state="quarantined")
    daemon.done("third")
    daemon.stop()
    assert never["to_state"] == "quarantined"
    assert never["error"] == "exit status 65: refused by law"
    assert never["level"] == bad["level"] == "error"
    assert bad["error"] == "exit status 1: trouble"
    assert bad["attempt"] == 3
    assert shot["error"] == "killed by SIGKILL"
    fails = daemon.having("fail", path="bad")
    assert [line["to_state"] for line in fails] == ["failed", "failed", "quarantined"]
    assert len(daemon.having("retry", path="bad")) == 2
    assert len(daemon.having("start", path="third")) == 3


def test_a_handler_that_takes_too_long_is_ended_with_its_group(site: Site) -> None:
    """TERM, then KILL, to the program and its children; the file fails."""
    effects = site.effects()
    stubborn = site.script("stubborn", 'trap "" TERM; sleep 600 & echo $! >"$EFFECTS"; wait; wait')
    limits = 'timeout = "100ms"\nkill_after = "100ms"\nattempts = 1'
    site.configure(site.watch(f'name = "s"\ncommand = [{stubborn}]\n{limits}'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    child = int(effects.next())
    failed = daemon.line("fail", path="a")
    assert failed["to_state"] == "quarantined"
    assert failed["error"] == "timed out after 0.1s"
    assert not Path(f"/proc/{child}/cmdline").exists() or b"sleep" not in _cmdline(child)
    daemon.stop()


def _cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_two_steps_run_in_order_and_a_retry_resumes_at_the_one_that_failed(site: Site) -> None:
    """`first` runs once and before `second`, which needs two attempts."""
    effects = site.effects()
    script = site.script(
        "step",
        'echo "$TREEWARDEN_STEP $TREEWARDEN_ATTEMPT $TREEWARDEN_KEY" >"$EFFECTS"\n'
        '[ "$TREEWARDEN_STEP $TREEWARDEN_ATTEMPT" != "second 1" ]',
    )
    step = f"command = [{script}]\n{FAST}"
    site.configure(site.watch(f'name = "first"\n{step}', f'name = "second"\n{step}'))
    daemon = site.start().ready()
    (site.tree / "a").touch()
    daemon.done("a")
    daemon.stop()
    reports = [effects.next().decode().split() for _ in range(3)]
    assert [report[:2] for report in reports] == [["first", "1"], ["second", "1"], ["second", "2"]]
    assert reports[0][2] != reports[1][2] == reports[2][2]


def test_what_happens_to_a_file_under_its_handlers_hands_is_not_lost(site: Site) -> None:
    """Changed while handled: handled again. Removed while handled: gone. Both after the outcome."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"; read x <"$GATE"')
    site.configure(site.watch(f'name = "s"\ncommand = [{script}]'))
    daemon = site.start().ready()
    (site.tree / "changed").write_text("1")
    assert effects.next() == b"changed"
    (site.tree / "changed").write_text("22")
    gate.open()
    assert effects.next() == b"changed"
    gate.open()
    daemon.done("changed")
    (site.tree / "removed").touch()
    assert effects.next() == b"removed"
    (site.tree / "removed").unlink()
    # By the time of this line the hint of the removal has come, and found the file in a handler.
    (site.tree / "marker").touch()
    daemon.line("discover", path="marker")
    gate.open()
    daemon.line("vanish", path="removed")
    assert effects.next() == b"marker"
    gate.open()
    daemon.done("marker")
    daemon.stop()
    changed = daemon.having("succeed", path="changed")
    assert [line["to_state"] for line in changed] == ["settling", "done"]
    assert events(daemon.of("removed"))[-2:] == [("succeed", "done"), ("vanish", "gone")]


def test_each_watch_has_its_own_files_and_patterns(site: Site) -> None:
    """Two trees, one with patterns: only what is included and not excluded is ever seen."""
    (site.folder / "other").mkdir()
    (site.folder / "other/early.txt").touch()
    patterns = site.watch(include=["*.csv", "sub/"], exclude=[".*", "*.part", "tmp/"])
    site.configure(f"{patterns}\n{site.watch(name='v', path='other')}")
    for folder in ("sub", "tmp", "deep/er", ".git"):
        (site.tree / folder).mkdir(parents=True)
    (site.tree / "old.txt").touch()
    (site.tree / "old.csv").touch()
    daemon = site.start().ready()
    unwanted = ("a.txt", "b.csv.part", ".c.csv", "tmp/d.csv", "deep/e.txt", ".git/f.csv")
    for name in (*unwanted, "sub/g.txt", "deep/er/h.csv", "z.csv"):
        (site.tree / name).touch()
    (site.folder / "other/a.txt").touch()
    daemon.done("old.csv", "early.txt", "sub/g.txt", "deep/er/h.csv", "z.csv", "a.txt")
    # Whatever a hint brought has been looked at by the time a later one is through.
    (site.tree / "last.csv").touch()
    daemon.done("last.csv")
    daemon.stop()
    wanted = {"old.csv", "sub/g.txt", "deep/er/h.csv", "z.csv", "last.csv"}
    told = {line["path"] for line in daemon.lines if line.get("watch") == "w" and "path" in line}
    assert told == wanted
    assert {path for (path,) in site.sql("SELECT name FROM files WHERE watch = 'v'")} == {
        b"early.txt",
        b"a.txt",
    }
    assert site.sql("SELECT count(*) FROM files WHERE watch = 'w'") == [(len(wanted),)]


def test_existing_files_can_be_adopted(site: Site) -> None:
    """`adopt`: what was there before the first start is done without a handler, also later."""
    (site.tree / "old").touch()
    site.configure(site.watch('name = "s"\ncommand = ["/bin/true"]', existing="adopt"))
    daemon = site.start().ready()
    daemon.done("old")
    (site.tree / "new").touch()
    daemon.done("new")
    daemon.stop()
    assert events(daemon.of("old")) == [("discover", "done")]
    assert daemon.of("old")[0]["guard"] == "adopted"
    assert len(daemon.having("start")) == 1
    # Only the first start adopts.
    (site.tree / "between").touch()
    again = site.start().ready()
    again.done("between")
    again.stop()
    assert len(again.having("start")) == 1


def test_a_polled_tree_needs_no_watcher(site: Site) -> None:
    """With mode = "poll", created, changed and removed files are found by scans alone."""
    step = 'name = "s"\ncommand = ["/bin/true"]'
    site.configure(site.watch(step, mode="poll", poll="50ms"))
    daemon = site.start().ready()
    (site.tree / "d").mkdir()
    (site.tree / "d/a").write_text("1")
    daemon.done("d/a")
    (site.tree / "d/a").write_text("22")
    daemon.nth(2, "succeed", path="d/a")
    (site.tree / "d/a").unlink()
    daemon.line("vanish", path="d/a")
    daemon.stop()
    assert {line["cause"] for line in daemon.of("d/a")} == {"scan", "alarm", "dispatch", "handler"}


def test_a_watch_without_steps_only_tracks(site: Site) -> None:
    """Settled means done; nothing is started."""
    (site.tree / "old").touch()
    os.utime(site.tree / "old")
    site.configure(site.watch())
    daemon = site.start().ready()
    (site.tree / "new").touch()
    daemon.done("old", "new")
    daemon.stop()
    assert {line["guard"] for line in daemon.lines if line.get("to_state") == "done"} == {
        "tracked_only"
    }


def test_lines_to_a_file_are_appended_after_a_torn_one_is_ended(site: Site) -> None:
    """`output` names a file: former lines stay, and a torn last one does not swallow the next."""
    log = site.folder / "log.jsonl"
    log.write_bytes(b'{"event": "whole"}\n{"event": "to')
    effects = site.effects()
    report = site.script("report", 'echo "$TREEWARDEN_NAME" >"$EFFECTS"')
    site.configure(site.watch(f'name = "s"\ncommand = [{report}]'), output="log.jsonl")
    daemon = site.start()
    (site.tree / "a").touch()
    effects.next()
    assert daemon.stop() == []
    lines = log.read_bytes().splitlines()
    assert lines[:2] == [b'{"event": "whole"}', b'{"event": "to']
    told = [parse(line + b"\n")["event"] for line in lines[2:]]
    assert told[0] == "daemon.started"
    assert told[-1] == "daemon.stopped"
    assert told.count("succeed") == 1
