"""What becomes of files in the end, from outside: archive, quarantine, removal, loops."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.acceptance.harness import PROJECT
from tests.acceptance.mounts import needs_mounts, private_mounts
from tests.acceptance.sites import Site

QUIET = 'quiet = "50ms"'


def with_key(site: Site, key: str, *steps: str, **keys: object) -> str:
    """A watch with a key whose value is a table, which `Site.watch` does not write."""
    return site.watch(*steps, **keys).replace("[watch.settle]", f"{key}\n[watch.settle]", 1)  # type: ignore[arg-type]


def show(site: Site, path: str) -> dict[str, Any]:
    answer = site.run("show", "--config", str(site.config), "--json", path)
    assert (answer.returncode, answer.stderr) == (0, "")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def told(site: Site, path: str) -> list[str]:
    answer = site.run("explain", "--config", str(site.config), "--json", path)
    sentences: list[str] = json.loads(answer.stdout)["sentences"]
    return sentences


def folder(site: Site, name: str) -> Path:
    (site.folder / name).mkdir()
    return site.folder / name


def test_archive(site: Site) -> None:
    """A file is handled, and then moved to a folder named after the day on which it came."""
    archive = folder(site, "archive")
    step = 'name = "load"\ncommand = ["/bin/true"]'
    site.configure(with_key(site, 'on_done = { move = "archive/{date}/{relpath}" }', step))
    (site.tree / "d").mkdir()
    (site.tree / "d/a.csv").write_text("content")
    daemon = site.start().ready()
    line = daemon.line("succeed", path="d/a.csv", to_state="gone")
    daemon.stop()
    (moved,) = archive.glob("????-??-??/d/a.csv")
    assert (moved.read_text(), line["target"]) == ("content", str(moved))
    assert not (site.tree / "d/a.csv").exists()
    shown = show(site, "d/a.csv")
    assert (shown["state"], shown["result"]) == ("gone", None)
    assert shown["done"] is not None
    assert shown["transitions"][-1]["target"] == str(moved)
    text = site.run("show", "--config", str(site.config), "d/a.csv").stdout
    assert f"target={moved}" in text
    assert told(site, "d/a.csv")[1] == f"All was done with it, and it was taken to {moved}."


def test_deleted(site: Site) -> None:
    """With `on_done = "delete"` nothing is left of what was handled."""
    step = 'name = "load"\ncommand = ["/bin/true"]'
    site.configure(site.watch(step, on_done="delete"))
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    daemon.line("succeed", path="a", to_state="gone")
    daemon.stop()
    assert list(site.tree.iterdir()) == []
    assert "it was deleted" in told(site, "a")[1]


@needs_mounts
def test_archive_that_is_full(site: Site) -> None:
    """A full disk costs no attempt and quarantines nothing; with room again the file is moved."""
    archive = folder(site, "archive")
    site.configure(with_key(site, 'on_done = { move = "archive/{relpath}" }'))
    (site.tree / "a").write_bytes(b"content" * 1_000_000)
    with private_mounts() as mounts:
        mounts.image(site.folder / "image", archive)
        inside = mounts.inside(archive)
        filler = inside / "filler"
        filler.write_bytes(bytes(8 << 20))
        daemon = site.start(wrapper=mounts.wrapper).ready()
        tried = daemon.nth(2, "interrupt", path="a", step="on_done", cause="unavailable")
        assert "No space left on device" in tried["error"]
        assert [path.name for path in inside.iterdir() if path.is_file()] == ["filler"]
        filler.unlink()
        daemon.line("succeed", path="a", to_state="gone")
        assert (inside / "a").read_bytes() == b"content" * 1_000_000
        daemon.stop()
    assert not daemon.having("fail")
    assert not (site.tree / "a").exists()


def test_quarantine(site: Site) -> None:
    """A refused file is taken aside, its reason beside it, and `explain` knows why and where."""
    aside = folder(site, "aside")
    step = 'name = "load"\ncommand = ["sh", "-c", "echo not a table >&2; exit 65"]'
    site.configure(with_key(site, 'on_quarantine = { move = "aside/{name}" }', step))
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    line = daemon.line("vanish", path="a", to_state="gone")
    daemon.stop()
    assert (line["target"], line["cause"]) == (str(aside / "a"), "on_quarantine")
    reason = json.loads((aside / "a.reason.json").read_bytes())
    assert reason["error"] == "exit status 65: not a table"
    assert show(site, "a")["error"] == "exit status 65: not a table"
    why = f"It was quarantined (exit status 65: not a table), and it was taken to {aside / 'a'}."
    assert told(site, "a")[1] == why


def test_why_it_was_not_taken_aside(site: Site) -> None:
    """What keeps a quarantined file in the tree is in `explain`, and what to do about it."""
    step = 'name = "load"\ncommand = ["sh", "-c", "exit 65"]'
    site.configure(with_key(site, 'on_quarantine = { move = "aside/{directory}/{name}" }', step))
    (site.tree / "d").mkdir()
    (site.tree / "d/a").write_text("content")
    site.start().ready().line("daemon.degraded", reason="quarantined files stay in the tree")
    template = f"It is to be taken to '{site.folder}/aside/{{directory}}/{{name}}'"
    absent = f"there is no folder '{site.folder}/aside': files stay until there is"
    told_first = told(site, "d/a")[1]
    assert told_first == f"{template}, and could not be yet: {absent}; make it, or mount it."
    aside = folder(site, "aside")
    (aside / "d").write_text("no folder")
    in_place = f"'{aside}/d' is not a folder; name a folder"
    assert told(site, "d/a")[1] == f"{template}, and could not be yet: {in_place}."


@needs_mounts
def test_check_warns_of_an_archive_that_is_a_mount_point(site: Site) -> None:
    """A mount point is a folder also while nothing is mounted; one on the file system is not."""
    archive = folder(site, "archive")
    with private_mounts() as mounts:
        mounts.tmpfs(archive)
        (mounts.inside(archive) / "in").mkdir()
        for place, level in (("archive", "warning"), ("archive/in", "ok")):
            site.configure(with_key(site, f'on_done = {{ move = "{place}/{{relpath}}" }}'))
            command = site.command("check", "--json", "--config", str(site.config))
            answer = subprocess.run(
                [*mounts.wrapper, *command], capture_output=True, check=False, cwd=PROJECT
            )
            found = {f["what"]: f for f in map(json.loads, answer.stdout.splitlines())}
            assert found["w.on_done"]["level"] == level


def test_quarantined_before_there_was_a_folder(site: Site) -> None:
    """What was quarantined under an older configuration is taken aside at the next start."""
    aside = folder(site, "aside")
    step = 'name = "load"\ncommand = ["sh", "-c", "exit 65"]'
    site.configure(site.watch(step))
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    daemon.line("reject", path="a")
    daemon.stop()
    site.configure(with_key(site, 'on_quarantine = { move = "aside/{name}" }', step))
    daemon = site.start().ready()
    daemon.line("vanish", path="a", to_state="gone")
    daemon.stop()
    assert (aside / "a").read_text() == "content"


def test_removal(site: Site) -> None:
    """What undoes is told the path, and that it was removed; a failure is tried again."""
    effects = site.effects()
    script = site.script(
        "tell",
        'echo "$TREEWARDEN_EVENT $TREEWARDEN_STEP $1 $TREEWARDEN_ATTEMPT" >"$EFFECTS"\n'
        '[ "$TREEWARDEN_EVENT$TREEWARDEN_ATTEMPT" != removed1 ]',
    )
    tell = f'command = [{script}, "{{relpath}}"]'
    watch = site.watch(f'name = "index"\n{tell}')
    undo = f'[[watch.removed]]\nname = "forget"\n{tell}\nbackoff = {{ first = "10ms" }}'
    site.configure(f"{watch}\n{undo}")
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    assert effects.next() == b"settled index a 1"
    daemon.done("a")
    (site.tree / "a").unlink()
    assert effects.next() == b"removed forget a 1"
    assert effects.next() == b"removed forget a 2"
    daemon.line("succeed", path="a", to_state="gone")
    daemon.stop()
    events = [each["event"] for each in show(site, "a")["transitions"]]
    assert events[-6:] == ["vanish", "start", "fail", "retry", "start", "succeed"]


def test_removal_that_waits(site: Site) -> None:
    """`explain` says that what was done is being undone, and why that fails."""
    watch = site.watch('name = "index"\ncommand = ["/bin/true"]')
    undo = 'name = "forget"\ncommand = ["false"]\nbackoff = { first = "1h", max = "1h" }'
    site.configure(f"{watch}\n[[watch.removed]]\n{undo}")
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    daemon.done("a")
    (site.tree / "a").unlink()
    daemon.line("fail", path="a")
    sentences = told(site, "a")
    daemon.stop()
    assert "the steps for removed files undo what was done" in sentences[0]
    assert sentences[1] == "Step forget failed, failure 1 of 5: exit status 1."
    assert len(sentences) == 3


def test_loop(site: Site) -> None:
    """A handler that writes to its own file is stopped, and `explain` says so."""
    touch = 'name = "touch"\ncommand = ["sh", "-c", "echo >>$0", "{path}"]'
    site.configure(site.watch(touch, settle='quiet = "10ms"', max_cycles=3))
    (site.tree / "a").write_text("content")
    daemon = site.start().ready()
    line = daemon.line("settle", path="a", to_state="quarantined")
    daemon.stop()
    assert line["guard"] == "looping"
    assert len(daemon.having("start", path="a")) == 3
    assert "came back more than 3 times within an hour" in told(site, "a")[0]
