"""`on_done`, `on_quarantine`, `[[watch.removed]]`: what is read, and what is refused."""

from pathlib import Path

import pytest

from daemon.config import Watch, load
from daemon.config_after import Move, base_of
from daemon.config_steps import CommandStep
from daemon.errors import ConfigError

HEAD = '[daemon]\nstate_dir = "state"\n[[watch]]\nname = "in"\npath = "tree"\nexclude = [".*"]\n'
STEP = 'name = "load"\ncommand = ["true"]\n'


def read(folder: Path, *lines: str) -> Watch:
    (folder / "tree").mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_text(HEAD + "\n".join(lines))
    (watch,) = load(path).watch
    return watch


def refused(folder: Path, *lines: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, *lines)
    (problem,) = caught.value.problems
    return f"{problem.key}: {problem.found}; {problem.remedy}"


def test_what_is_read(tmp_path: Path) -> None:
    """A relative place starts at the file's folder; `on_done` is the last of the steps."""
    watch = read(
        tmp_path,
        'on_done = { move = "archive/{date}/{relpath}", overwrite = true }',
        'on_quarantine = { move = "/srv/bad/{name}" }',
        f"[[watch.step]]\n{STEP}",
        '[[watch.removed]]\nname = "forget"\ncommand = ["true"]',
    )
    place = str(tmp_path / "archive" / "{date}" / "{relpath}")
    assert watch.on_done == Move(move=place, overwrite=True)
    assert watch.on_quarantine == Move(move="/srv/bad/{name}")
    assert watch.step_names == ("load", "on_done")
    assert [step.name for step in watch.all_steps] == ["load", "on_done", "forget"]


def test_places_of_steps_for_removed_files(tmp_path: Path) -> None:
    """They start at the file's folder, as those of the steps do."""
    (tmp_path / "work").mkdir()
    watch = read(tmp_path, f'[[watch.removed]]\n{STEP}cwd = "work"')
    (step,) = watch.removed
    assert isinstance(step, CommandStep)
    assert step.cwd == tmp_path / "work"


def test_delete(tmp_path: Path) -> None:
    """The word is enough; and it is no word for what was quarantined."""
    assert read(tmp_path, 'on_done = "delete"').on_done == "delete"
    assert refused(tmp_path, 'on_quarantine = "delete"').startswith(
        "watch[0].on_quarantine: found 'delete'; write { move ="
    )


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('on_done = "remove"', "found 'remove'; write { move = \"/srv/archive/{relpath}\" }, or"),
        ('on_done = { move = "/a/{nme}/{name}" }', "found '{nme}' in"),
        ('on_done = { move = "/a/{name" }', "found '{' in"),
        ('on_done = { move = "/a/{date}" }', "one place for all files; let it end in {relpath}"),
        ("on_done = { move = 5 }", "write a path in quotes"),
        ("on_done = { overwrite = true }", "the key is missing"),
        ('on_done = { move = "/a/{name}", copy = true }', "unknown key"),
        ("max_cycles = 0", "at least 1"),
    ],
)
def test_what_is_refused(tmp_path: Path, line: str, found: str) -> None:
    """Each with what was found, and what would do."""
    assert found in refused(tmp_path, line)


@pytest.mark.parametrize(
    ("move", "found"),
    [
        ("tree/archive/{name}", "is inside the watched folder"),
        ("tree/{name}.done", "is inside the watched folder"),
        ("tree/d/../{name}.done", "is inside the watched folder"),
        ("{directory}/{name}", "it may lead into the watched folder"),
    ],
)
@pytest.mark.parametrize("key", ["on_done", "on_quarantine"])
def test_what_would_come_back(tmp_path: Path, key: str, move: str, found: str) -> None:
    """A place in the tree, or one that may lead there, would bring the file back for ever."""
    assert f"watch[0].{key}.move: " in (said := refused(tmp_path, f'{key} = {{ move = "{move}" }}'))
    assert found in said


@pytest.mark.parametrize(
    "move", ["tree/.archive/{name}", "tree/.a/b/{name}", "{watch}-archive/{name}", "tree2/{name}"]
)
def test_what_does_not_come_back(tmp_path: Path, move: str) -> None:
    """A folder that is excluded, and one beside the tree."""
    assert read(tmp_path, f'on_done = {{ move = "{move}" }}').on_done is not None


def test_a_link_into_the_tree(tmp_path: Path) -> None:
    """Where a folder leads is what counts."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "link").symlink_to("tree")
    assert "is inside the watched folder" in refused(
        tmp_path, 'on_done = { move = "link/a/{name}" }'
    )


@pytest.mark.parametrize("name", ["on_done", "on_quarantine"])
@pytest.mark.parametrize("table", ["step", "removed"])
def test_reserved_names(tmp_path: Path, table: str, name: str) -> None:
    """No step reads as what is done in the end."""
    step = f'[[watch.{table}]]\nname = "{name}"\ncommand = ["true"]'
    assert "give the step another name" in refused(tmp_path, step)


def test_names_over_both_lists(tmp_path: Path) -> None:
    """A step for removed files has a name that no other step has."""
    said = refused(tmp_path, f"[[watch.step]]\n{STEP}[[watch.removed]]\n{STEP}")
    assert said.startswith("watch[0].removed[0].name: found 'load' again; watch[0].step[0] has")


@pytest.mark.parametrize(
    ("move", "base"),
    [
        ("/a/b/{name}", "/a/b"),
        ("/a/b-{date}/{name}", "/a"),
        ("/a/{watch}/{{x}}/{name}", "/a/w/{x}"),
        ("/{name}", "/"),
    ],
)
def test_base(move: str, base: str) -> None:
    """What comes before the first placeholder that differs by file."""
    assert base_of(move, "w") == Path(base)
