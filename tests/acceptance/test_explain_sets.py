"""`explain` of files that wait for a marker or for their set, and of manifests themselves."""

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.sites import Site
from tests.acceptance.test_explain import TRUE, conditions, explain, told
from tests.acceptance.trees import live_rows

MANIFEST = 'quiet = "20ms"\nmanifest = "*.manifest"'
RUNNING = pytest.mark.parametrize("running", [True, False])
NOT_RUNNING = "The daemon does not run."


def manifest_of(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = (one for one in found["conditions"] if one["name"] == "manifest")
    return dict(one)


def states_of(site: Site) -> set[str]:
    return {row.state for row in live_rows(site).values()}


def lacks(found: dict[str, Any]) -> dict[str, str | None]:
    return {member["path"]: member["lacks"] for member in manifest_of(found)["members"]}


def test_a_marker_that_is_missing(site: Site) -> None:
    """Its path is named; one from before the file does not count, and is none of the files."""
    site.configure(site.watch(TRUE, settle='quiet = "1h"\nmarker = "{name}.done"'))
    (site.tree / "d").mkdir()
    (site.tree / "d/a").touch()
    site.start().ready().stop()
    _, found, sentences = told(site, "d/a")
    assert conditions(found)["marker"] is False
    assert "Its marker 'd/a.done' is not there." in sentences
    (site.tree / "d/a.done").touch()
    assert conditions(told(site, "d/a")[1])["marker"] is True
    os.utime(site.tree / "d/a.done", (1, 1))
    _, found, sentences = told(site, "d/a")
    assert conditions(found)["marker"] is False
    older = "is older than the file, and counts only when it is made anew."
    assert f"Its marker 'd/a.done' {older}" in sentences
    assert told(site, "d/a.done")[2][0].startswith("It is a marker: ")


@RUNNING
def test_a_file_that_waits_for_its_set(site: Site, *, running: bool) -> None:
    """Its manifest and what the members lack; for the manifest its list; exit 0 when it is over."""
    site.configure(site.watch(TRUE, settle=MANIFEST))
    folder = site.tree / "d"
    folder.mkdir()
    for name in ("a", "wrong", "newer"):
        (folder / name).write_text(name)
        os.utime(folder / name, (1_000, 3_000 if name == "newer" else 1_000))
    right = hashlib.sha256(b"right").hexdigest()
    (folder / "x.manifest").write_text(f"a\n{right}  wrong\nmissing\nnewer\n")
    os.utime(folder / "x.manifest", (2_000, 2_000))
    daemon = site.start().ready()
    daemon.wait_for(lambda _: states_of(site) == {"settling"} and len(live_rows(site)) == 3)
    if not running:
        daemon.stop()
    beside = [] if running else [NOT_RUNNING]
    words = (
        "lists 4 members, of which 1 is not there: 'd/missing'; "
        "1 was changed after it was written: 'd/newer'; 1 has another checksum: 'd/wrong'."
    )
    code, found, sentences = told(site, "d/a")
    assert (code, found["state"]) == (1, "settling")
    assert conditions(found) == {"quiet": True, "closed": True, "manifest": False}
    assert sentences[2:] == [f"Its manifest 'd/x.manifest' {words}", *beside]
    assert manifest_of(found)["manifest"] == "d/x.manifest"
    lacking = {"d/a": None, "d/wrong": "mismatched", "d/missing": "missing", "d/newer": "newer"}
    assert lacks(found) == lacking
    code, found, sentences = told(site, "d/x.manifest")
    assert (code, found["state"], lacks(found)) == (1, None, lacking)
    assert sentences[0].startswith("It is a manifest: ")
    members = "Its members: 'd/a', 'd/wrong', 'd/missing', 'd/newer'."
    assert sentences[1:] == [f"It {words}", members, *beside]
    older = "Its manifest 'd/x.manifest' is older than the file, and counts only when it is made"
    assert told(site, "d/newer")[2][-1 - len(beside)].startswith(older)

    (folder / "missing").touch()
    (folder / "wrong").write_text("right")
    for name in ("newer", "x.manifest"):
        (folder / name).touch()
    if not running:
        daemon = site.start().ready()
    daemon.done("d/a", "d/wrong", "d/missing", "d/newer")
    if not running:
        daemon.stop()
    code, found, sentences = told(site, "d/x.manifest")
    assert (code, sentences[1]) == (0, "It lists 4 members, and all of them have settled.")
    assert set(lacks(found).values()) == {None}
    assert told(site, "d/a")[0] == 0
    if running:
        daemon.stop()


def test_a_file_that_no_manifest_names(site: Site) -> None:
    """It says which there are, and what is wrong with one; names do nothing to a terminal."""
    site.configure(site.watch(TRUE, settle=MANIFEST))
    name = b"esc\x1b\xff\\"
    Path(os.fsdecode(bytes(site.tree) + b"/" + name)).touch()
    (site.tree / "x.manifest").write_bytes(name + b"\nmissing\n")
    (site.tree / "alone").touch()
    (site.tree / "bad.manifest").write_text("/alone\n")
    daemon = site.start().ready()
    daemon.wait_for(lambda _: daemon.state("alone") == "settling")
    _, found, sentences = told(site, "alone")
    assert manifest_of(found).keys() == {"name", "satisfied", "sentence"}
    assert "No manifest in its directory or above names it. There are: '" in sentences[-1]
    assert "'bad.manifest' cannot be used: line 1: '/alone' is absolute" in sentences[-1]
    assert "It cannot be used: line 1: " in told(site, "bad.manifest")[2][-1]
    assert "Its members: 'esc\\x1b\\xff\\\\', 'missing'." in explain(site, "x.manifest").stdout
    member, _ = manifest_of(told(site, "x.manifest")[1])["members"]
    assert (member["path_b64"], member["lacks"]) == ("ZXNjG/9c", None)
    daemon.stop()
