"""The keys of a step that starts programs: what is accepted, and what refuses the rest."""

from pathlib import Path

import pytest

from daemon.config import Config, load
from daemon.config_program import Limits
from daemon.config_steps import CommandStep
from daemon.errors import ConfigError, Problem

GOOD = """\
[daemon]
state_dir = "state"
[[watch]]
name = "w"
path = "in"
[[watch.step]]
name = "s"
command = ["true", "{path}"]
"""
BATCH = GOOD.replace("{path}", "{paths}") + "batch = 100\n"


def config(folder: Path, text: str) -> Config:
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "config.toml"
    path.write_text(text)
    return load(path)


def step(folder: Path, text: str) -> CommandStep:
    (found,) = config(folder, text).watch[0].step
    assert isinstance(found, CommandStep)
    return found


def problems(folder: Path, text: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        config(folder, text)
    return caught.value.problems


def test_places_are_relative_to_the_file(tmp_path: Path) -> None:
    """`cwd` and `output` begin at the configuration's folder, as all paths do."""
    (tmp_path / "work").mkdir()
    found = step(tmp_path, GOOD + 'cwd = "work"\noutput = "logs/{name}.log"\n')
    assert (found.cwd, found.output) == (tmp_path / "work", f"{tmp_path}/logs/{{name}}.log")


def test_limits(tmp_path: Path) -> None:
    """Limits are written as people write them."""
    found = step(tmp_path, GOOD + 'limits = { cpu = "1m30s", memory = "2GiB", files = 64 }\n')
    assert found.limits == Limits(cpu=90, memory=2 << 30, files=64)
    assert step(tmp_path, GOOD + "limits = { memory = 4096 }\n").limits.memory == 4096


def test_places(tmp_path: Path) -> None:
    """A step has room for as many files as its runs hold."""
    assert step(tmp_path, GOOD + "concurrency = 3\n").places == 3
    assert step(tmp_path, BATCH + "concurrency = 3\n").places == 300


@pytest.mark.parametrize("argument", ["{paths}", "{{paths}}", "{{{path}}}"])
def test_arguments(tmp_path: Path, argument: str) -> None:
    """`{paths}` is an argument of its own, and braces are braces."""
    assert step(tmp_path, GOOD.replace("{path}", argument)).command == ("true", argument)


@pytest.mark.parametrize(
    ("keys", "key", "found", "remedy"),
    [
        ("batch = 0", "batch", "0", "at least 1"),
        ('stdin = "path"', "stdin", "'path'", "'paths0'"),
        ('output = ""', "output", "''", "{name}"),
        ('output = "/var/{path}"', "output", "{path}", "{name}"),
        ('output = "/var/{x}"', "output", "'{x}'", "{name}"),
        ('output = "in/{name}.log"', "output", "inside the watched folder", "outside"),
        ('result = "stderr"', "result", "'stderr'", "'stdout'"),
        ("unavailable = [0]", "unavailable[0]", "0", "at least 1"),
        ("unavailable = [256]", "unavailable[0]", "256", "at most 255"),
        ("unavailable = [75, 65]", "unavailable", "65", "quarantined"),
        ('cwd = "nowhere"', "cwd", "there is no folder", "create it"),
        ("cwd = 3", "cwd", "3", "path"),
        ("env = 3", "env", "3", "table"),
        ('env = { "A B" = "x" }', "env.'A B'", "no name", "letters"),
        ("env = { A = 3 }", "env.A", "3", "text"),
        ('env = { A = "a\\u0000" }', "env.A", "\\x00", "NUL"),
        ('env = { TREEWARDEN_KEY = "x" }', "env.TREEWARDEN_KEY", "taken", "another name"),
        ('env = { NOTIFY_SOCKET = "x" }', "env.NOTIFY_SOCKET", "taken", "another name"),
        ('user = "nobody-of-that-name"', "user", "no user 'nobody-of", "create the user"),
        ("user = 0", "user", "0", "text"),
        ("nice = 20", "nice", "20", "at most 19"),
        ("limits = { cpu = 0 }", "limits.cpu", "0", "more than 0"),
        ('limits = { memory = "12" }', "limits.memory", "'12'", "512MB"),
        ("limits = { memory = 0 }", "limits.memory", "0", "512MB"),
        ("limits = { memory = true }", "limits.memory", "true", "512MB"),
        ("limits = { files = 2 }", "limits.files", "2", "at least 8"),
        ("limits = { time = 2 }", "limits.time", "unknown key", "cpu, memory, files"),
        ('on_restart = "leave"', "on_restart", "'leave'", "'wait'"),
    ],
)
@pytest.mark.parametrize("kind", ["step", "removed"])
def test_refused(tmp_path: Path, kind: str, keys: str, key: str, found: str, remedy: str) -> None:
    """Each wrong value is refused with where it is, what was found, and what would do."""
    text = GOOD.replace("watch.step", f"watch.{kind}")
    (problem,) = problems(tmp_path, text + keys + "\n")
    assert (problem.line, problem.key) == (9, f"watch[0].{kind}[0].{key}")
    assert found in problem.found
    assert remedy in problem.remedy


@pytest.mark.parametrize(
    ("text", "key", "found", "remedy"),
    [
        (BATCH.replace('"true", ', ""), "command", "'{paths}' in its place", "program first"),
        (BATCH.replace("{paths}", "x{paths}"), "command[1]", "a part of", "of its own"),
        (BATCH.replace('"{paths}"', '"{paths}", "{paths}"'), "command", "more than once", "enough"),
        (BATCH.replace('"{paths}"', '"{name}", "{paths}"'), "command[1]", "'{name}'", "{paths}"),
        (BATCH.replace(', "{paths}"', ""), "command", "no way by which", "paths0"),
        (BATCH + 'stdin = "file"', "stdin", "beside a batch", "'json'"),
        (BATCH + 'output = "{name}.log"', "output", "'{name}'", "many files"),
        (BATCH + 'result = "stdout"', "result", "beside a batch", "leave it away"),
        (BATCH + "concurrency = 1000", "batch", "100000", "at most"),
        (BATCH + 'on_change = "cancel"', "on_change", "the others of its batch", "batch = 1"),
    ],
)
def test_refused_in_a_batch(tmp_path: Path, text: str, key: str, found: str, remedy: str) -> None:
    """What is about one file is refused where there are many, and so is a batch nobody hears of."""
    (problem,) = problems(tmp_path, text + "\n")
    assert problem.key == f"watch[0].step[0].{key}"
    assert found in problem.found
    assert remedy in problem.remedy


def test_all_at_once(tmp_path: Path) -> None:
    """Everything that is wrong is told in one run."""
    text = BATCH.replace("{paths}", "{path}") + 'stdin = "file"\nresult = "stdout"\n'
    keys = [problem.key.rpartition(".")[2] for problem in problems(tmp_path, text)]
    assert sorted(keys) == ["command[1]", "result", "stdin"]
