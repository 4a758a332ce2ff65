"""Point by point: bad input gets a clear answer and loses nothing."""

import base64
import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.acceptance.mounts import UNPRIVILEGED, needs_mounts
from tests.acceptance.sites import Site

STEP = 'name = "s"\ncommand = ["/bin/true"]'


def test_a_bad_configuration_is_refused_with_all_its_errors(site: Site) -> None:
    """Exit 78; each problem on a line of its own, with file, line, key and remedy."""
    site.configure(
        '[[watch]]\nname = "a b"\npath = "in"\nquite = "2s"\n'
        '[[watch.step]]\nname = "s"\ncommand = "true"\ntimeout = "soon"\n'
        '[[watch]]\nname = "v"\npath = "nowhere"'
    )
    result = site.refused()
    assert result.returncode == 78
    assert not result.stdout
    for key in ("watch[0].name", "watch[1].path", "watch[0].quite", "step[0].command", "timeout"):
        assert key in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.count(f"{site.config}:") == 5


def test_no_configuration_is_said_plainly(site: Site) -> None:
    """Exit 78 and the name of the file that is not there."""
    result = site.run("run", "--config", str(site.folder / "none.toml"))
    assert (result.returncode, result.stdout) == (78, "")
    assert "none.toml" in result.stderr


def test_a_state_folder_inside_a_watched_tree_is_refused(site: Site) -> None:
    """Also through a symlink; nothing is created there."""
    (site.folder / "link").symlink_to(site.tree)
    for place in ("in/state", "link/state"):
        site.configure(site.watch())
        site.config.write_text(site.config.read_text().replace('"state"', f'"{place}"'))
        result = site.refused()
        assert result.returncode == 78
        assert "is inside the watched folder" in result.stderr
    assert not list(site.tree.iterdir())


def test_a_watched_root_that_does_not_exist_is_refused(site: Site) -> None:
    """Exit 78, naming it; with create = true it is made instead."""
    site.configure(site.watch(path="missing/deep"))
    result = site.refused()
    assert result.returncode == 78
    assert str(site.folder / "missing/deep") in result.stderr
    site.configure(site.watch(path="missing/deep", create=True))
    daemon = site.start().ready()
    (site.folder / "missing/deep/a").touch()
    daemon.done("a")
    daemon.stop()


def test_a_second_daemon_is_refused_and_the_first_goes_on(site: Site) -> None:
    """Exit 75 with the pid of the first; a lock file without a daemon stops nobody."""
    site.configure(site.watch())
    daemon = site.start().ready()
    second = site.refused()
    assert second.returncode == 75
    assert str(daemon.pid) in second.stderr
    assert not second.stdout
    (site.tree / "a").touch()
    daemon.done("a")
    daemon.kill()
    after = site.start().ready()
    after.stop()


def test_a_newer_database_is_refused(site: Site) -> None:
    """Exit 78 and a sentence with both versions; the database is left as it was."""
    site.state.mkdir()
    with closing(sqlite3.connect(site.database)) as db:
        db.execute("PRAGMA user_version = 99")
    before = site.database.read_bytes()
    site.configure(site.watch())
    result = site.refused()
    assert result.returncode == 78
    assert "schema version 99" in result.stderr
    assert "Traceback" not in result.stderr
    assert site.database.read_bytes() == before


def test_a_file_that_is_no_database_is_refused(site: Site) -> None:
    """Exit 74 and its path; it is left as it was."""
    site.state.mkdir()
    site.database.write_bytes(b"something else\n" * 1000)
    site.configure(site.watch())
    result = site.refused()
    assert result.returncode == 74
    assert str(site.database) in result.stderr
    assert "Traceback" not in result.stderr
    assert site.database.read_bytes() == b"something else\n" * 1000


def test_a_state_folder_that_is_a_file_is_refused(site: Site) -> None:
    """The path, the system's words, and who tells what to do; and `check` does."""
    site.configure(site.watch())
    site.state.write_text("x")
    refused = site.run("run", "--config", str(site.config))
    assert refused.returncode == 74
    assert refused.stderr.startswith(f"treewarden: {site.state}: File exists; ")
    assert "`treewarden check` tells" in refused.stderr
    checked = site.run("check", "--config", str(site.config))
    assert checked.returncode == 78
    assert f"{str(site.state)!r} is not a folder; name a folder" in checked.stdout


def test_a_state_folder_that_cannot_be_written_is_refused(site: Site) -> None:
    """Exit 74 and its path; root is made to respect modes for this."""
    site.state.mkdir(mode=0o500)
    site.configure(site.watch())
    respectful = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    daemon = site.start(wrapper=respectful)
    assert daemon.wait() == 74
    assert str(site.state) in daemon.stderr
    assert "Permission denied" in daemon.stderr
    assert "Traceback" not in daemon.stderr


@needs_mounts
def test_a_state_folder_on_a_read_only_file_system_is_refused(site: Site) -> None:
    """Exit 74 and its path, for root as well."""
    site.state.mkdir()
    site.configure(site.watch())
    state = str(site.state)
    mount = f"mount --bind {state} {state} && mount -o remount,bind,ro {state} && exec "
    wrapper = ("unshare", "--mount", "sh", "-c", mount + '"$@"', "sh")
    daemon = site.start(wrapper=wrapper)
    assert daemon.wait() == 74
    assert state in daemon.stderr
    assert "Read-only file system" in daemon.stderr
    assert "Traceback" not in daemon.stderr


def test_a_log_file_that_cannot_be_opened_is_refused(site: Site) -> None:
    """Exit 74 and its path."""
    site.configure(site.watch(), output="no/such/folder/log")
    result = site.refused()
    assert result.returncode == 74
    assert "no/such/folder/log" in result.stderr
    assert "Traceback" not in result.stderr


NAMES = [
    b"new\nline",
    b"\n",
    b"quo\"te's",
    b"sp  ace ",
    b" lead",
    b"-rf",
    b"{path}%s",
    b"\\back\\slash",
    b"tab\t\x01\x7f",
    "ünïcode \u202e.txt".encode(),
    b"x" * 255,
    ("ö" * 127).encode(),
    b"not utf-8 \xff\xfe",
    b"\xed\xb2\x80",
    b"\xc3",
]


def test_any_name_that_linux_allows_is_handled_exactly(site: Site) -> None:
    """The handler gets the very bytes, the line has them readable, and exact where they must be.

    Both for files that are there at the start and for files that arrive, in folders named like it.
    """
    effects = site.effects()
    script = site.script(
        "exact",
        'printf "%s%s" "$1" "$TREEWARDEN_RELPATH" | base64 -w0 >"$EFFECTS.b64"; '
        'printf "%s\\n" "$(printf "%s|%s" "$1" "$TREEWARDEN_RELPATH" | base64 -w0)" >"$EFFECTS"',
    )
    site.configure(site.watch(f'name = "s"\ncommand = [{script}, "{{path}}"]'))
    root = os.fsencode(site.tree)
    found = [b"found " + name[:200] for name in NAMES]
    for name in found:
        Path(os.fsdecode(root + b"/" + name)).touch()
    daemon = site.start().ready()
    arrived = [*NAMES, *(name[:200] + b"d/" + name for name in NAMES)]
    for name in arrived:
        path = Path(os.fsdecode(root + b"/" + name))
        path.parent.mkdir(exist_ok=True)
        path.touch()
    expected = {root + b"/" + name + b"|" + name for name in (*found, *arrived)}
    reported = {base64.b64decode(effects.next()) for _ in expected}
    assert reported == expected
    daemon.wait_for(lambda _: len(daemon.having("succeed")) >= len(expected), "end of all")
    daemon.stop()
    exact = set()
    for line in daemon.having("succeed"):
        text = line["path"]
        raw = base64.b64decode(line["path_b64"]) if "path_b64" in line else text.encode()
        assert text == raw.decode("utf-8", "backslashreplace")
        exact.add(raw)
    assert exact == {*found, *arrived}


def test_what_is_no_regular_file_is_ignored(site: Site) -> None:
    """A symlink is not followed and not processed, whatever it points to; nothing blocks.

    Each is said once, at debug.
    """
    site.configure(site.watch(STEP), level="debug")
    outside = site.folder / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    _make_specials(site.tree, "found", outside)
    daemon = site.start().ready()
    _make_specials(site.tree, "new", outside)
    (site.tree / "plain").touch()
    daemon.done("plain")
    # What the watcher says of the folder behind the links leads nowhere either.
    (outside / "later").touch()
    (outside / "deep").mkdir()
    (outside / "deep/er").touch()
    (site.tree / "last").touch()
    daemon.done("last")
    for name in ("found", "new"):
        for kind in ("-link", "-folder", "-dangling", "-fifo", "-socket"):
            daemon.line("daemon.ignored", path=name + kind)
    daemon.stop()
    again = site.start().ready()
    again.stop()
    handled = {line["path"] for line in daemon.lines if "from_state" in line}
    assert handled == {"plain", "last"}
    assert not [line for line in again.lines if "from_state" in line]
    ignored = [line["path"] for line in daemon.having("daemon.ignored")]
    assert len(ignored) == len(set(ignored)) == 10


def _make_specials(tree: Path, name: str, outside: Path) -> None:
    (tree / f"{name}-link").symlink_to(outside / "secret")
    (tree / f"{name}-folder").symlink_to(outside)
    (tree / f"{name}-dangling").symlink_to("/nowhere")
    os.mkfifo(tree / f"{name}-fifo")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        # The address of a socket is short; the folder's path may be long.
        folder = os.open(tree, os.O_PATH)
        listener.bind(f"/proc/self/fd/{folder}/{name}-socket")
        os.close(folder)


def test_a_handler_that_cannot_run_fails_neither_the_file_nor_the_daemon(site: Site) -> None:
    """Missing, not executable, a folder, no interpreter: each is named, and spends no attempt."""
    plain = site.folder / "plain"
    plain.write_text("not a program")
    orphan = site.folder / "orphan"
    orphan.write_text("#!/no/such/interpreter\n")
    orphan.chmod(0o755)
    cases = {
        "/no/such/program": "No such file or directory",
        str(plain): "Permission denied",
        str(site.folder): "Is a directory",
        str(orphan): "the interpreter that its first line names does not exist",
    }
    watches = []
    for number, program in enumerate(cases):
        (site.folder / str(number)).mkdir()
        (site.folder / str(number) / f"file{number}").touch()
        command = f'name = "s"\ncommand = [{json.dumps(program)}]\nattempts = 1'
        watches.append(site.watch(command, name=f"w{number}", path=str(number)))
    site.configure("\n".join([*watches, site.watch(STEP)]))
    daemon = site.start().ready()
    for number, (program, reason) in enumerate(cases.items()):
        kept = daemon.line("interrupt", path=f"file{number}")
        assert (kept["to_state"], kept["cause"]) == ("ready", "unavailable")
        assert kept["error"] == f"cannot run {program}: {reason}"
    (site.tree / "a").touch()
    daemon.done("a")
    daemon.stop()


def test_a_file_that_vanishes_at_any_point_is_gone(site: Site) -> None:
    """While settling, ready, being handled, between two steps, failed, and done."""
    effects, gate = site.effects(), site.gate()
    deletes = site.script("first", 'case "$TREEWARDEN_RELPATH" in handled) rm "$1";; esac')
    script = site.script(
        "second",
        'case "$TREEWARDEN_RELPATH" in block) echo in >"$EFFECTS"; read x <"$GATE";; '
        'step) rm "$1"; exit 1;; failed) exit 1;; esac',
    )
    wait = 'backoff = { first = "1h", max = "1h" }'
    site.configure(
        site.watch(
            f'name = "first"\ncommand = [{deletes}, "{{path}}"]',
            f'name = "second"\ncommand = [{script}, "{{path}}"]\n{wait}',
        )
    )
    daemon = site.start().ready()
    for name in ("handled", "step", "failed", "done"):
        (site.tree / name).touch()
    daemon.line("vanish", path="handled", from_state="ready")
    daemon.line("vanish", path="step", from_state="failed")
    daemon.line("fail", path="failed", to_state="failed")
    (site.tree / "failed").unlink()
    daemon.line("vanish", path="failed", from_state="failed")
    daemon.done("done")
    (site.tree / "done").unlink()
    daemon.line("vanish", path="done", from_state="done")
    (site.tree / "block").touch()
    effects.next()
    (site.tree / "ready").touch()
    daemon.line("succeed", path="ready", step="first")
    (site.tree / "ready").unlink()
    daemon.line("vanish", path="ready", from_state="ready")
    with (site.tree / "settling").open("wb") as file:
        file.write(b"x")
        file.flush()
        daemon.line("discover", path="settling")
        (site.tree / "settling").unlink()
        daemon.line("vanish", path="settling", from_state="settling")
    gate.open()
    daemon.done("block")
    daemon.stop()
    assert site.sql("SELECT name FROM files WHERE state != 'gone'") == [(b"block",)]
    assert not [line for line in daemon.lines if line.get("outcome") == "failed"]


def test_a_file_and_a_folder_may_take_each_others_place(site: Site) -> None:
    """A folder full of files, moved to where a file just was, and back: none is missed."""
    site.configure(site.watch(STEP))
    (site.tree / "x").touch()
    daemon = site.start().ready()
    daemon.done("x")
    made = site.folder / "made"
    (made / "deep").mkdir(parents=True)
    for name in ("a", "deep/b"):
        (made / name).touch()
    (site.tree / "x").unlink()
    made.rename(site.tree / "x")
    daemon.line("vanish", path="x")
    daemon.done("x/a", "x/deep/b")
    (site.tree / "x").rename(made)
    (site.tree / "x").touch()
    daemon.nth(2, "succeed", path="x")
    daemon.stop()


def test_an_unreadable_file_is_the_handlers_trouble_not_the_daemons(site: Site) -> None:
    """The file fails with the handler's words; an unreadable folder is said, and found later."""
    site.configure(site.watch('name = "s"\ncommand = ["/bin/cat", "{path}"]\nattempts = 1'))
    (site.tree / "closed").mkdir()
    (site.tree / "closed/inside").touch()
    (site.tree / "closed").chmod(0)
    (site.tree / "secret").touch(mode=0)
    (site.tree / "public").touch()
    daemon = site.start(wrapper=UNPRIVILEGED).ready()
    failed = daemon.line("fail", path="secret")
    degraded = daemon.line("daemon.degraded", path="closed")
    daemon.done("public")
    (site.tree / "closed").chmod(0o755)
    daemon.done("closed/inside")
    daemon.stop()
    assert failed["to_state"] == "quarantined"
    assert "Permission denied" in failed["error"]
    assert degraded["error"] == "Permission denied"


def test_a_root_that_goes_away_removes_no_file(site: Site) -> None:
    """Renamed away: root_lost, and no file is `gone`. Back, with one file less: that one is."""
    site.configure(site.watch(STEP))
    for name in ("kept", "removed"):
        (site.tree / name).touch()
    daemon = site.start().ready()
    daemon.done("kept", "removed")
    away = site.folder / "away"
    site.tree.rename(away)
    daemon.line("daemon.root_lost", watch="w")
    (away / "removed").unlink()
    (away / "added").touch()
    assert not daemon.having("vanish")
    away.rename(site.tree)
    daemon.line("daemon.root_back", watch="w")
    daemon.line("vanish", path="removed")
    daemon.done("added")
    (site.tree / "later").touch()
    daemon.done("later")
    daemon.stop()
    assert [line["path"] for line in daemon.having("vanish")] == ["removed"]


def test_a_root_that_is_made_anew_is_watched_again(site: Site) -> None:
    """Removed and made again at once, perhaps with the same inode: what arrives is found."""
    site.configure(site.watch(STEP))
    daemon = site.start().ready()
    for number in range(3):
        site.tree.rmdir()
        site.tree.mkdir()
        (site.tree / f"a{number}").touch()
        daemon.done(f"a{number}")
        (site.tree / f"b{number}").touch()
        daemon.done(f"b{number}")
        for name in ("a", "b"):
            (site.tree / f"{name}{number}").unlink()
            daemon.line("vanish", path=f"{name}{number}")
    daemon.stop()


def test_thousands_of_files_in_folders_made_at_full_speed_are_all_done(site: Site) -> None:
    """2,000 files in 400 nested fresh folders, half moved in as a whole: every one is done."""
    site.configure(site.watch())
    daemon = site.start().ready()
    made = site.folder / "made"
    for number in range(2000):
        root = site.tree if number % 2 else made
        path = root / f"a{number % 10}" / f"b{number % 40}" / f"c{number % 200}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made.rename(site.tree / "moved")
    query = "SELECT count(*) FROM files WHERE state = 'done'"
    daemon.wait_for(lambda _: site.sql(query) == [(2000,)], "end of 2,000 files")
    daemon.stop()


def test_a_root_with_a_name_that_is_not_utf_8_is_no_trouble(site: Site) -> None:
    """Reached through a symlink that the configuration can spell: polled if it must be."""
    odd = Path(os.fsdecode(os.fsencode(site.folder) + b"/odd\xff"))
    odd.mkdir()
    (site.folder / "link").symlink_to(odd)
    site.configure(site.watch(STEP, path="link", reconcile="100ms"))
    (odd / "found").touch()
    daemon = site.start().ready()
    daemon.done("found")
    (odd / "new").touch()
    daemon.done("new")
    away = site.folder / "away"
    odd.rename(away)
    daemon.line("daemon.root_lost")
    away.rename(odd)
    daemon.line("daemon.root_back")
    daemon.stop()
