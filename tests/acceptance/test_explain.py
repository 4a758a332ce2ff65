"""`explain`: why a file is where it is, on what the real daemon made of it."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import DEADLINE, RunningDaemon
from tests.acceptance.sites import Site

TRUE = 'name = "load"\ncommand = ["/bin/true"]'
JUDGE = 'name = "load"\ncommand = ["sh", "-c", "echo no such customer >&2; exit {}"]\n'
LATER = 'backoff = { first = "1h", max = "1h", jitter = 0 }'


def explain(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    answer = site.run("explain", "--config", str(site.config), *arguments)
    assert answer.stderr == ""
    return answer


def told(site: Site, path: str) -> tuple[int, dict[str, Any], list[str]]:
    """The exit code, the whole answer, and its sentences; as text it says the same."""
    answer = explain(site, "--json", path)
    (line,) = answer.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert answer.returncode == (1 if found["waits"] else 0)
    assert len(explain(site, path).stdout.splitlines()) == 1 + len(found["sentences"])
    return answer.returncode, found, found["sentences"]


def conditions(found: dict[str, Any]) -> dict[str, bool | None]:
    return {one["name"]: one["satisfied"] for one in found["conditions"]}


@contextmanager
def held_open(path: Path) -> Iterator[int]:
    """Another process has the file open for writing; its pid."""
    writer = subprocess.Popen(
        ["sh", "-c", 'exec 3>>"$0"; echo; exec cat', str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"\n"
        yield writer.pid


def test_a_file_that_is_not_quiet_yet(site: Site) -> None:
    """How long it is unchanged, how long it has to be; that nobody writes is said as well."""
    site.configure(site.watch(TRUE, settle='quiet = "1h"'))
    (site.tree / "a").write_text("x")
    daemon = site.start().ready()
    daemon.line("discover", path="a")
    code, found, sentences = told(site, "a")
    assert (code, found["state"], found["watch"]) == (1, "settling", "w")
    assert conditions(found) == {"quiet": False, "closed": True}
    assert sentences[0].startswith("It is unchanged for ")
    assert " of the 3600 s that are asked for: 35" in sentences[0]
    assert sentences[1:] == ["Nobody has it open for writing."]
    daemon.stop()


def test_a_file_that_is_open_for_writing(site: Site) -> None:
    """The evidence that is missing is named, and so is the process that keeps it open."""
    site.configure(site.watch(TRUE))
    daemon = site.start().ready()
    with held_open(site.tree / "a") as pid:
        daemon.line("discover", path="a")
        code, found, sentences = told(site, "a")
        assert (code, found["state"]) == (1, "settling")
        assert conditions(found)["closed"] is False
        assert f"It is open for writing by pid {pid} (cat)." in sentences
    daemon.done("a")
    assert told(site, "a")[0] == 0
    daemon.stop()


def test_a_file_whose_writers_do_not_matter(site: Site) -> None:
    """Where the watch does not ask who has it open, neither does the answer."""
    site.configure(site.watch(TRUE, settle='quiet = "1h"\nwriters = "ignore"'))
    (site.tree / "a").touch()
    site.start().ready().stop()
    code, found, sentences = told(site, "a")
    assert (code, conditions(found)) == (1, {"quiet": False})
    assert sentences[1:] == ["The daemon does not run."]


def test_a_file_that_failed(site: Site) -> None:
    """With the handler's words, which failure of how many it was, and when it is tried again."""
    site.configure(site.watch(JUDGE.format(1) + LATER))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.line("fail", path="a")
    code, found, sentences = told(site, "a")
    assert (code, found["state"]) == (1, "failed")
    assert sentences[0] == ("Step load failed, failure 1 of 5: exit status 1: no such customer.")
    assert sentences[1].startswith("It is tried again in 59m")
    daemon.stop()


def test_a_file_that_met_what_is_away(site: Site) -> None:
    """Its step is not open after one failure, and still it waits for more than a place."""
    away = 'unavailable = [69]\nbreaker = { first = "1h", max = "1h" }'
    site.configure(site.watch(JUDGE.format(69) + away))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.line("interrupt", path="a")
    code, found, sentences = told(site, "a")
    assert (code, found["state"], len(sentences)) == (0, "ready", 3)
    met = "Its last try met what is no fault of the file: exit status 69: no such customer."
    assert sentences[1:] == [met, "That spent no attempt, and it is tried again by itself."]
    daemon.stop()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (65, "The handler of step load refused it for good: exit status 65: no such customer."),
        (1, "Step load failed once, the last time with: exit status 1: no such customer."),
    ],
)
def test_a_file_in_quarantine(site: Site, status: int, said: str) -> None:
    """Why it was given up, and what an operator can do: and that does it."""
    site.configure(site.watch(JUDGE.format(status) + "attempts = 1"))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.wait_for(lambda _: daemon.state("a") == "quarantined", "quarantine")
    code, found, sentences = told(site, "a")
    assert (code, found["state"]) == (1, "quarantined")
    assert sentences[0] == said
    assert "or `touch` it to begin anew" in sentences[1]
    (site.tree / "a").touch()
    daemon.nth(2, "start", path="a")
    daemon.stop()


def was_ready(daemon: RunningDaemon, name: str) -> bool:
    """By its first look, where that comes late, or by a later one."""
    return any(line["to_state"] == "ready" for line in daemon.of(name))


def test_files_at_work_and_in_the_queue(site: Site) -> None:
    """One runs and one waits for its place: nothing is amiss, unless the daemon is down."""
    effects, gate = site.effects(), site.gate()
    script = site.script("wait", 'echo "$TREEWARDEN_RELPATH" >"$EFFECTS"; read x <"$GATE"')
    site.configure(site.watch(f'name = "load"\ncommand = [{script}]'))
    daemon = site.start().ready()
    for name in ("a", "b"):
        (site.tree / name).touch()
    daemon.wait_for(lambda _: was_ready(daemon, "a") and was_ready(daemon, "b"), "both ready")
    running = effects.next().decode()
    waiting = "b" if running == "a" else "a"
    code, found, sentences = told(site, running)
    assert (code, found["state"], len(sentences)) == (0, "processing", 1)
    assert sentences[0].startswith("Attempt 1 of step load runs, for ")
    code, found, sentences = told(site, waiting)
    assert (code, found["state"], len(sentences)) == (0, "ready", 1)
    assert sentences[0].startswith("It waits for a place in step load, which takes 1 at a time, ")
    daemon.kill()
    gate.open(2)
    down = "The daemon does not run."
    assert told(site, waiting)[0] == 1
    assert told(site, waiting)[2][1:] == [down]
    unknown = "How this attempt ends is not on record: the next start has the file tried again."
    assert told(site, running)[2][1:] == [unknown, down]
    site.configure(site.watch(f'name = "other"\ncommand = [{script}]'))
    anew = "Step load is no longer configured: the next start begins anew with the file."
    assert told(site, waiting)[2][1:] == [anew, down]
    assert told(site, running)[2][1:] == [anew, unknown, down]


def test_files_that_are_through(site: Site) -> None:
    """`done` and `gone` are well; what the disk shows beyond that is said, and waits."""
    site.configure(site.watch(TRUE))
    daemon = site.start().ready()
    for name in ("a", "b", "c"):
        (site.tree / name).touch()
    daemon.done("a", "b", "c")
    (site.tree / "b").unlink()
    daemon.line("vanish", path="b")
    daemon.stop()
    assert [told(site, name)[0] for name in ("a", "b")] == [0, 0]
    assert told(site, "a")[1]["state"] == "done"
    assert told(site, "b")[2][0].startswith("It is off the disk, for ")
    (site.tree / "a").write_text("more")
    (site.tree / "b").touch()
    (site.tree / "c").unlink()
    answers = [told(site, name) for name in ("a", "b", "c")]
    assert [code for code, _, _ in answers] == [1, 1, 1]
    assert [sentences[1] for _, _, sentences in answers] == [
        "It has changed since, and the daemon has not looked at it yet.",
        "It is there again, and the daemon has not looked at it yet.",
        "It is off the disk, and the daemon has not looked at it yet.",
    ]


def test_what_is_not_known(site: Site) -> None:
    """Excluded, no file, not there, in no watch, or not seen yet: each has its own sentence."""
    include, exclude = ["*.csv", "new"], ["*.part", "tmp/", "!keep.part"]
    polled = site.watch(TRUE, mode="poll", poll="1h", include=include, exclude=exclude)
    site.configure(polled)
    daemon = site.start().ready()
    for folder in ("folder", "tmp"):
        (site.tree / folder).mkdir()
    for name in ("a.csv.part", "tmp/b.csv", "c.txt", "new"):
        (site.tree / name).touch()
    (site.tree / "link").symlink_to("new")
    (site.tree / "through").symlink_to("folder")
    (site.tree / "folder/d.csv").touch()
    starts = {
        "a.csv.part": "The pattern '*.part' of `exclude` keeps it, or its folder, out.",
        "tmp/b.csv": "The pattern 'tmp/' of `exclude` keeps it",
        "c.txt": "No pattern of `include` fits it.",
        "new": "The daemon has not seen it yet: a scan, every 15m, finds it",
        "folder": "It is a directory: ",
        "link": "It is a link, or something else that is no regular file",
        "through/d.csv": "It lies behind a symbolic link",
        "nothing": f"No watch has it, or ever had. There are: w ({site.tree}).",
        f"{site.tree}/nothing": "Nothing is there, and the database knows of nothing that was.",
        "/etc/hostname": f"It is in no watched folder. There are: w ({site.tree}).",
    }
    for path, start in starts.items():
        code, found, sentences = told(site, path)
        assert (code, found["state"], len(sentences)) == (1, None, 1)
        assert sentences[0].startswith(start), path
    daemon.stop()


def many(site: Site) -> RunningDaemon:
    """A daemon that misses more than it may."""
    site.configure(site.watch())
    (site.tree / "d").mkdir()
    names = [f"d/{number}" for number in range(101)]
    for name in names:
        (site.tree / name).touch()
    daemon = site.start().ready()
    daemon.done(*names)
    (site.tree / "d").rename(site.folder / "away")
    daemon.line("daemon.removals_frozen", watch="w")
    await_known(site, "are missing at once")
    return daemon


def await_known(site: Site, words: str) -> None:
    """What `explain` knows of the daemon is written down a moment after the line."""
    until = time.monotonic() + DEADLINE
    while words not in site.sql("SELECT detection FROM watches")[0][0]:
        assert time.monotonic() < until


def test_a_removal_that_is_frozen(site: Site) -> None:
    """Why the file stays though it is off the disk, and the command that lets it go."""
    daemon = many(site)
    code, found, sentences = told(site, "d/7")
    assert (code, found["state"]) == (1, "done")
    reason = "101 of 101 files are missing at once; freeze_share is 0.5"
    assert sentences[1] == f"It is off the disk, but removals are frozen: {reason}."
    start, _, command = sentences[2].partition(": ")
    assert start == "If it was meant to go"
    program, *arguments = command.split()
    assert program == "treewarden"
    assert site.run(*arguments).returncode == 0
    daemon.line("vanish", path="d/7")
    assert told(site, "d/7")[0] == 0
    daemon.stop()


def test_a_root_that_is_away(site: Site) -> None:
    """Nothing can be concluded then, and the answer says so; the configuration is refused too."""
    site.configure(site.watch(TRUE))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.done("a")
    site.tree.rename(site.folder / "away")
    daemon.line("daemon.removals_frozen")
    await_known(site, "the root is lost")
    code, found, sentences = told(site, "a")
    assert (code, found["state"]) == (1, "done")
    assert "It cannot be looked at: the watched root is not there." in sentences
    assert f"there is no folder '{site.tree}'" in sentences[-1]
    daemon.stop()


def test_a_watch_that_is_no_longer_configured(site: Site) -> None:
    """Its files are still known, and nobody looks after them; nothing is said of the disk."""
    site.configure(site.watch(TRUE))
    (site.tree / "a").touch()
    daemon = site.start().ready()
    daemon.done("a")
    daemon.stop()
    site.configure(site.watch(TRUE, name="other"))
    answer = explain(site, "--json", "--watch", "w", "a")
    assert answer.returncode == 1
    assert json.loads(answer.stdout)["sentences"][1:] == [
        "Its watch is no longer configured: nobody looks after it."
    ]


def test_a_file_of_two_watches(site: Site) -> None:
    """A relative path that two watches have is explained for both, or for the one named."""
    (site.folder / "other").mkdir()
    other = '[[watch]]\nname = "v"\npath = "other"\n[watch.settle]\nquiet = "1h"\n'
    site.configure(f"{site.watch()}\n{other}")
    for folder in (site.tree, site.folder / "other"):
        (folder / "same").touch()
    daemon = site.start().ready()
    daemon.line("discover", watch="v")
    daemon.wait_for(
        lambda lines: any((x.get("watch"), x.get("to_state")) == ("w", "done") for x in lines)
    )
    answer = explain(site, "--json", "same")
    assert answer.returncode == 1
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [(one["watch"], one["state"]) for one in found] == [("w", "done"), ("v", "settling")]
    assert explain(site, "--watch", "w", "same").returncode == 0
    daemon.stop()


def test_names_do_nothing_to_a_terminal(site: Site) -> None:
    """Control characters are escaped in the text, and exact in the JSON."""
    site.configure(site.watch(TRUE))
    name = b"esc\x1b[2J \xff"
    path = Path(os.fsdecode(os.fsencode(site.tree) + b"/" + name))
    path.touch()
    daemon = site.start().ready()
    daemon.line("succeed")
    text = explain(site, str(path)).stdout
    assert text.startswith("esc\\x1b[2J \\xff of w: done\n")
    found = json.loads(explain(site, "--json", str(path)).stdout)
    assert found["path_b64"] == "ZXNjG1sySiD/"
    daemon.stop()


def test_no_database_yet(site: Site) -> None:
    """Before the first start there is nothing to explain: 69."""
    site.configure(site.watch())
    answer = site.run("explain", "--config", str(site.config), "a")
    assert answer.returncode == 69
    assert "has the daemon run yet?" in answer.stderr
