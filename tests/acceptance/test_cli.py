"""`status`, `ls`, `show` and `check`: the real commands on what the real daemon wrote."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.harness import DEADLINE, PROJECT, RunningDaemon
from tests.acceptance.sites import Site

STEP = 'name = "load"\ncommand = ["sh", "-c", "case $1 in *bad*) exit 65;; esac", "-", "{path}"]'
LONG = "l" * 255
NAMES = [b"a.txt", b"sub/b.csv", b"new\nline", b'it\'s "quoted"', b"back\\slash", b"\xff\xfe"]
NAMES += [b"esc\x1b[2J", LONG.encode(), "gr\u00fc\u00df \u202e".encode(), b"bad"]
EXCLUDING = '[[watch]]\nexclude = ["*.part"]'
HEAVY = {"asyncio", "structlog", "statemachine", "watchfiles", "aiosqlite", "pathspec"}
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def handled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site where a daemon has handled files with hostile names, and has stopped."""
    site = Site(tmp_path_factory.mktemp("handled"))
    site.configure(site.watch(STEP))
    (site.tree / "sub").mkdir()
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(site.tree) + b"/" + name)).write_bytes(b"x")
    try:
        daemon = site.start().ready()
        _await_ends(daemon, len(NAMES))
        daemon.stop()
        yield site
    finally:
        site.close()


@pytest.fixture
def used(site: Site, handled: Site) -> Site:
    """The same, to be changed: all paths in its configuration are relative."""
    shutil.copytree(handled.folder, site.folder, dirs_exist_ok=True)
    return site


def _await_ends(daemon: RunningDaemon, count: int) -> None:
    ends = ("done", "quarantined")
    daemon.wait_for(
        lambda lines: (
            count == len({(x["watch"], x["path"]) for x in lines if x.get("to_state") in ends})
        )
    )


def ask(site: Site, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return site.run(command, "--config", str(site.config), *arguments)


def objects(site: Site, command: str, *arguments: str) -> list[dict[str, Any]]:
    answer = ask(site, command, "--json", *arguments)
    assert (answer.returncode, answer.stderr) == (0, "")
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_ls_lists_every_name_on_a_line_of_its_own(used: Site) -> None:
    """Control characters, backslashes and foreign bytes are escaped; nothing else is."""
    lines = ask(used, "ls").stdout.split("\n")
    assert lines.pop() == ""
    shown = {line.split(None, 5)[5] for line in lines}
    assert shown == {
        *("a.txt", "sub/b.csv", "new\\nline", 'it\'s "quoted"', "back\\\\slash", "\\xff\\xfe"),
        *("esc\\x1b[2J", LONG, "gr\u00fc\u00df \\u202e", "bad"),
    }


def test_ls_json_is_exact(used: Site) -> None:
    """Each file is one object; a name that is not UTF-8 has its bytes in path_b64."""
    found = objects(used, "ls")
    paths = {f["path"] for f in found if "path_b64" not in f}
    assert paths == {name.decode() for name in NAMES if name != b"\xff\xfe"}
    assert [f["path_b64"] for f in found if "path_b64" in f] == ["//4="]
    assert {f["state"] for f in found if f["path"] != "bad"} == {"done"}


def test_ls_filters(used: Site) -> None:
    """State, watch, pattern and limit choose; '*' in a pattern does not stop at a '/'."""

    def paths(*arguments: str) -> list[str]:
        return [f["path"] for f in objects(used, "ls", *arguments)]

    assert paths("--state", "quarantined") == ["bad"]
    assert len(paths("--state", "quarantined", "--state", "done")) == len(NAMES)
    assert len(paths("--watch", "w")) == len(NAMES)
    assert paths("--watch", "w", "--state", "quarantined") == ["bad"]
    assert paths("*.csv") == ["sub/b.csv"]
    assert paths("???e line", "--state", "failed") == []
    assert paths("new?line") == ["new\nline"]
    assert len(paths("--limit", "3")) == 3
    assert paths("--limit", "0") == []


@pytest.mark.parametrize(
    ("arguments", "named"), [(["--state", "fine"], "'quarantined'"), (["--watch", "x"], "are: w")]
)
def test_a_wrong_filter_is_a_usage_error(used: Site, arguments: list[str], named: str) -> None:
    """A state or a watch that does not exist ends with 64 and names those that do."""
    answer = ask(used, "ls", *arguments)
    assert answer.returncode == 64
    assert named in answer.stderr


def test_status_counts_with_the_daemon_down(used: Site) -> None:
    """Counts by state, nothing owed, and that no daemon runs."""
    (status,) = objects(used, "status")
    assert (status["running"], status["pid"], status["lines_owed"]) == (False, None, 0)
    (watch,) = status["watches"]
    assert (watch["name"], watch["path"]) == ("w", str(used.tree))
    assert watch["total"] == len(NAMES)
    assert {k: v for k, v in watch["files"].items() if v} == {
        "done": len(NAMES) - 1,
        "quarantined": 1,
    }
    text = ask(used, "status").stdout
    assert "not running" in text
    assert "1 quarantined, 9 done" in text


def test_reading_while_the_daemon_runs(used: Site) -> None:
    """The same answers beside a running daemon, with its pid, and it goes on undisturbed."""
    daemon = used.start().ready()
    (status,) = objects(used, "status")
    assert (status["running"], status["pid"]) == (True, daemon.pid)
    assert len(objects(used, "ls")) == len(NAMES)
    assert ask(used, "check").stdout.count(f"yes, pid {daemon.pid}") == 1
    (used.tree / "late").write_text("x")
    daemon.done("late")
    assert objects(used, "show", "late")[0]["state"] == "done"
    daemon.stop()


def test_status_tells_what_is_waiting(site: Site) -> None:
    """A failed file's next attempt and the age of what is ready are told."""
    site.configure(
        site.watch(
            'name = "load"\ncommand = ["sh", "-c", "exit 1"]\n'
            'backoff = { first = "1h", max = "1h" }'
        )
    )
    (site.tree / "f").write_text("x")
    daemon = site.start().ready()
    due = daemon.line("fail")["due_at"]
    daemon.kill()
    (status,) = objects(site, "status")
    assert status["running"] is False
    assert status["watches"][0]["files"]["failed"] == 1
    assert status["watches"][0]["next_retry_at"] == due


def test_lines_owed_are_transitions_without_a_line(used: Site) -> None:
    """What the log has not got is counted as rows, not as the distance of numbers."""
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("UPDATE journal SET seq = (SELECT max(seq) FROM transitions) - 3")
        db.execute("DELETE FROM transitions WHERE seq = (SELECT max(seq) - 1 FROM transitions)")
        db.commit()
    (status,) = objects(used, "status")
    assert status["lines_owed"] == 2


def test_show_tells_the_whole_life(used: Site) -> None:
    """The row, and its transitions in order, from the first to the last."""
    (shown,) = objects(used, "show", "a.txt")
    edges = [(t["event"], t["from_state"], t["to_state"]) for t in shown["transitions"]]
    assert edges[0][:2] == ("discover", "untracked")
    assert edges[-1] == ("succeed", "processing", "done")
    assert [t["version"] for t in shown["transitions"]] == list(range(1, shown["version"] + 1))
    assert shown["size"] == 1
    text = ask(used, "show", "a.txt").stdout
    assert "processing -> done" in text
    assert "guard=settled" in text


@pytest.mark.parametrize("name", NAMES)
def test_show_finds_a_file_by_either_path(used: Site, name: bytes) -> None:
    """Relative to the watched folder or absolute, whatever is in the name."""
    relative = os.fsdecode(name)
    (by_relative,) = objects(used, "show", relative)
    (by_absolute,) = objects(used, "show", f"{used.tree}/{relative}")
    assert by_relative["file_id"] == by_absolute["file_id"]
    assert by_relative["path"] == name.decode("utf-8", "backslashreplace")


def test_show_finds_a_file_from_where_we_are(used: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path as the shell completes it, in whichever folder; what is nowhere else is found once."""
    monkeypatch.chdir(used.tree.parent)
    (shown,) = objects(used, "show", f"./{used.tree.name}/a.txt")
    assert shown["path"] == "a.txt"
    monkeypatch.chdir(used.tree)
    assert len(objects(used, "show", "a.txt")) == 1
    assert ask(used, "explain", "a.txt").stdout.startswith("a.txt of w: done")


def test_show_finds_a_file_through_a_link_to_its_folder(used: Site) -> None:
    """A link above the file leads to it, though the daemon knows only the real path."""
    (used.folder / "link").symlink_to(used.tree)
    (shown,) = objects(used, "show", f"{used.folder}/link/sub/../a.txt")
    assert shown["path"] == "a.txt"


def test_show_shows_the_file_of_every_watch(site: Site) -> None:
    """A relative path that two watches have is shown for both, or for the one that is named."""
    (site.folder / "other").mkdir()
    other = '[[watch]]\nname = "v"\npath = "other"\n[watch.settle]\nquiet = "50ms"\n'
    site.configure(f"{site.watch()}\n{other}")
    for folder in (site.tree, site.folder / "other"):
        (folder / "same").write_text("x")
    daemon = site.start().ready()
    _await_ends(daemon, 2)
    daemon.stop()
    assert [f["watch"] for f in objects(site, "show", "same")] == ["w", "v"]
    assert [f["watch"] for f in objects(site, "show", "--watch", "v", "same")] == ["v"]


def test_show_of_an_unknown_path(used: Site) -> None:
    """The answer is no: exit code 1, a sentence, and nothing on standard output."""
    answer = ask(used, "show", "no\nsuch")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == "treewarden: no file no\\nsuch is known\n"


@pytest.mark.parametrize("command", ["status", "ls", "show"])
def test_no_database_yet(site: Site, command: str) -> None:
    """Before the first start the answer is 69 and says why; nothing is made."""
    site.configure(site.watch())
    answer = ask(site, command, *(["x"] if command == "show" else []))
    assert answer.returncode == 69
    assert f"no database in {site.state}: has the daemon run yet?" in answer.stderr
    assert not site.state.exists()


def test_a_newer_schema_is_refused(used: Site) -> None:
    """A database of a newer program ends with 78 and names both versions."""
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("PRAGMA user_version = 99")
    answer = ask(used, "ls")
    assert answer.returncode == 78
    assert "schema version 99" in answer.stderr


def test_a_damaged_database(used: Site) -> None:
    """What is no database ends with 74, a sentence and a remedy, without a traceback."""
    used.database.write_bytes(b"this is not a database" * 500)
    answer = ask(used, "ls")
    assert answer.returncode == 74
    assert "file is not a database; stop the daemon" in answer.stderr


def test_a_locked_database(used: Site) -> None:
    """A database that another process holds altogether ends with 74 and says so."""
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        answer = ask(used, "ls")
    assert answer.returncode == 74
    assert "database is locked; another process holds it" in answer.stderr


def test_reading_leaves_nothing_behind(used: Site) -> None:
    """The commands make no file in the state folder, not even SQLite's own."""
    before = sorted(used.state.iterdir())
    for command in ("status", "ls"):
        assert ask(used, command).returncode == 0
    assert sorted(used.state.iterdir()) == before


def test_a_closed_reader_ends_the_command_quietly(used: Site) -> None:
    """`ls | head`: no complaint when nobody reads on."""
    readable, writable = os.pipe()
    os.close(readable)
    argv = used.command("ls", "--config", str(used.config))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with open(writable, "wb") as stdout:  # noqa: PTH123 - a descriptor
        ended = subprocess.run(
            argv, stdout=stdout, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert ended.stderr == b""


def test_a_full_disk_under_standard_output(used: Site) -> None:
    """An answer that cannot be written is an error, told in one sentence."""
    argv = used.command("ls", "--config", str(used.config))
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            argv, stdout=full, stderr=subprocess.PIPE, env=environment, check=False
        )
    assert ended.returncode == 74
    assert ended.stderr == b"treewarden: standard output: No space left on device\n"


@pytest.mark.parametrize("command", ["status", "ls", "show"])
def test_the_fast_commands_import_nothing_slow(used: Site, command: str) -> None:
    """An answer in under 100 ms has no room for asyncio or the daemon's other parts."""
    arguments = [command, "-c", str(used.config), *(["a.txt"] if command == "show" else [])]
    ended = _modules_after(arguments)
    assert ended.returncode == 0, ended.stderr
    assert not HEAVY & set(ended.stderr.split())


def _modules_after(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command, and name on standard error all that was imported."""
    return _python(
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from daemon.cli import main\n"
        "try: main()\n"
        "finally: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )


@pytest.mark.parametrize(("command", "code"), [(["check"], 0), (["explain", "a.txt"], 1)])
def test_the_others_import_nothing_slow(used: Site, command: list[str], code: int) -> None:
    """They answer in under 100 ms as well, though they read all; what knows patterns, with one."""
    for patterns in (set(), {"pathspec"}):
        ended = _modules_after([*command, "-c", str(used.config)])
        assert ended.returncode == code, ended.stderr
        assert HEAVY & set(ended.stderr.split()) == patterns
        used.config.write_text(used.config.read_text().replace("[[watch]]", EXCLUDING, 1))


@ROOT_ONLY
@pytest.mark.parametrize("running", [False, True])
def test_a_reader_who_may_not_write_there(used: Site, *, running: bool) -> None:
    """Another user who may read the state folder gets the answers, daemon up or down."""
    daemon = used.start().ready() if running else None
    _open_to_others(used)
    answer = _as_nobody(["ls", "-c", str(used.config)])
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == len(NAMES)
    status = _as_nobody(["status", "--json", "-c", str(used.config)])
    assert json.loads(status.stdout)["pid"] == (daemon.pid if daemon else None)


@ROOT_ONLY
def test_a_reader_who_may_not_read_there(used: Site) -> None:
    """Another user who may not read the state folder is told so, with 77."""
    _open_to_others(used)
    used.state.chmod(0o700)
    answer = _as_nobody(["ls", "-c", str(used.config)])
    assert answer.returncode == 77
    assert f"{used.state} is not for this user to read" in answer.stderr


def _open_to_others(site: Site) -> None:
    for folder in (site.folder, *site.folder.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011)
    if site.state.exists():
        site.state.chmod(0o755)
    site.config.chmod(0o644)


def _as_nobody(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Imports come first: another user may not even reach the interpreter's library."""
    return _python(
        f"import os, sys; sys.argv[1:] = {arguments!r}\n"
        "from daemon.cli import main, query\n"
        "import daemon.config, daemon.cli.check, daemon.cli.checks.environment\n"
        "import daemon.cli.loading\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "main()"
    )


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=DEADLINE,
    )


def test_check_finds_a_good_site_good(used: Site) -> None:
    """Every side of the surroundings is looked at, and no error is found."""
    found = {f["what"]: f for f in objects(used, "check")}
    assert {f["level"] for f in found.values()} <= {"ok", "warning"}
    assert found.keys() >= {
        *("user", "running", "database", "daemon.state_dir", "daemon.state_dir.lease"),
        *("daemon.state_dir.filesystem", "daemon.state_dir.space"),
        *("w.path", "w.filesystem", "w.load.command", "w.tree"),
        *("fs.inotify.max_user_watches", "fs.inotify.max_user_instances"),
    }
    assert found["w.tree"]["detail"] == "2 directories"
    assert ask(used, "check").returncode == 0


def test_check_before_the_first_start_makes_nothing(site: Site) -> None:
    """A state folder that can be made is good, and is not made."""
    site.configure(site.watch())
    assert ask(site, "check").returncode == 0
    assert not site.state.exists()


def test_check_tells_every_error_of_a_configuration(site: Site) -> None:
    """All at once, on standard output, with file, line, key, what was found and the remedy."""
    site.configure(f"{site.watch(bogus=1)}\n[watch.more]\n")
    answer = ask(site, "check", "--json")
    assert (answer.returncode, answer.stderr) == (78, "")
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [f["key"] for f in found] == ["watch[0].bogus", "watch[0].more"]
    for finding in found:
        assert finding["file"] == str(site.config)
        assert finding["line"]
        assert finding["remedy"]
    text = ask(site, "check")
    assert text.returncode == 78
    assert f"{site.config}:{found[0]['line']}: watch[0].bogus: unknown key" in text.stdout


def test_check_warns_of_a_program_that_is_not_there(site: Site) -> None:
    """A handler may be installed later: a warning, and no error."""
    site.configure(site.watch('name = "load"\ncommand = ["no-such-program"]'))
    found = {f["what"]: f for f in objects(site, "check")}
    assert found["w.load.command"]["level"] == "warning"


PROGRAMS = [("sh", "ok"), ("/bin/sh", "ok"), ("/bin", "warning"), ("/etc/passwd", "warning")]


@pytest.mark.parametrize(("program", "level"), PROGRAMS)
def test_check_looks_for_a_program_as_its_start_will(site: Site, program: str, level: str) -> None:
    """On PATH or where its path says; neither a folder nor a file without the right will do."""
    site.configure(site.watch(f'name = "load"\ncommand = ["{program}"]'))
    found = {f["what"]: f for f in objects(site, "check")}
    assert found["w.load.command"]["level"] == level


def test_check_leaves_nothing_behind(used: Site) -> None:
    """The file that it tries a lease on is gone when it ends."""
    before = sorted(used.state.iterdir())
    found = {f["what"]: f for f in objects(used, "check")}
    assert found["daemon.state_dir.lease"]["detail"].startswith("a read lease tells")
    assert sorted(used.state.iterdir()) == before


def test_check_names_a_newer_database(used: Site) -> None:
    """A database that the daemon would refuse is an error here already."""
    with closing(sqlite3.connect(used.database)) as db:
        db.execute("PRAGMA user_version = 99")
    answer = ask(used, "check")
    assert answer.returncode == 78
    assert "schema version 99" in answer.stdout


@ROOT_ONLY
def test_check_as_a_user_who_may_not_do_the_work(used: Site) -> None:
    """Folders that this user cannot read or write are errors, all of them in one run."""
    _open_to_others(used)
    used.tree.chmod(0o700)
    answer = _as_nobody(["check", "--json", "-c", str(used.config)])
    assert answer.returncode == 78, answer.stderr
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    errors = {f["what"] for f in found if f["level"] == "error"}
    assert errors == {"daemon.state_dir", "w.path"}


@ROOT_ONLY
def test_check_where_a_folder_above_may_not_be_entered(site: Site) -> None:
    """Whatever lies below a folder that this user may not enter is an error, and ends nothing."""
    closed = site.folder / "closed"
    (closed / "folder").mkdir(parents=True)
    closed.chmod(0o700)
    step = f'name = "load"\ncommand = ["true"]\noutput = "{closed}/output"'
    filing = f'[watch.on_done]\nmove = "{closed}/folder/{{relpath}}"\n'
    site.configure(f"{site.watch(step)}\n{filing}", output=f"{closed}/log")
    site.config.write_text(site.config.read_text().replace('"state', f'"{closed}/state'))
    _open_to_others(site)
    site.tree.chmod(0o777)
    answer = _as_nobody(["check", "--json", "-c", str(site.config)])
    assert (answer.returncode, answer.stderr) == (78, "")
    found = [json.loads(line) for line in answer.stdout.splitlines()]
    errors = {f["what"]: f["detail"] for f in found if f["level"] == "error"}
    unseen = f"'{closed}/folder' cannot be looked at: Permission denied"
    forbidden = f"'{closed}' cannot be written by this user"
    assert errors.pop("w.on_done") == f"{unseen}: files stay until there is"
    assert errors.pop("log.output") == f"'{closed}': {forbidden}"
    assert errors.pop("w.load.output") == f"'{closed}': {forbidden}"
    assert errors.pop("daemon.state_dir") == f"'{closed}/state', to be made: {forbidden}"
    assert errors.keys() == {"database"}


def test_a_writer_that_meets_a_lease_ends_no_command() -> None:
    """`explain` and `check` try leases, and the kernel has a signal for whoever meets one."""
    code = (
        "import os, signal, daemon.cli as cli;"
        "cli.cli.main = lambda **_: os.kill(os.getpid(), signal.SIGIO);"
        "cli.main()"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
