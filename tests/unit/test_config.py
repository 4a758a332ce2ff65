"""The configuration: what is read, what is refused, and how the refusal reads."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from daemon import locate
from daemon.config import Config, Metrics, Settle, Urgency, load
from daemon.config_address import Address, TcpAddress, UnixAddress
from daemon.config_after import Move
from daemon.config_program import Limits
from daemon.config_steps import KINDS, Backoff, Breaker, CommandStep, FunctionStep, WorkerStep
from daemon.errors import ConfigError, Problem
from daemon.toml_lines import line_numbers, line_of

GOOD = """\
[daemon]
state_dir = "state"
[[watch]]
name = "in"
path = "tree"
[[watch.step]]
name = "load"
command = ["true", "{path}"]
"""
EXAMPLE = Path(__file__).parents[2] / "config.example.toml"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the configuration beside two folders, `tree` and `other`, and a file, `plain`."""
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (tmp_path / "tree").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "plain").touch()

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def problems(path: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.file == str(path) for problem in caught.value.problems)
    assert all(problem.found and problem.remedy for problem in caught.value.problems)
    return caught.value.problems


def summary(path: Path) -> list[tuple[int | None, str]]:
    return [(problem.line, problem.key) for problem in problems(path)]


def test_the_example_works_as_it_stands() -> None:
    """The example is valid, and nothing in it needs root or a folder made by hand."""
    config = load(EXAMPLE)
    (watch,) = config.watch
    assert watch.path == EXAMPLE.parent / "incoming"
    assert watch.create
    assert config.daemon.runtime_dir == EXAMPLE.parent / "state" / "run"


def test_the_example_shows_every_option_and_its_default(tmp_path: Path) -> None:
    """Uncommenting every option changes nothing but those that have no default to show."""
    lines = EXAMPLE.read_text().splitlines()
    shown = [line.removeprefix("# ") if " = " in line else line for line in lines]
    path = tmp_path / "config.toml"
    path.write_text("\n".join(shown))
    plain, full = load_in(tmp_path, EXAMPLE.read_text()), load(path)
    (watch,) = full.watch
    assert full.daemon.node == "files1"
    assert (watch.settle.marker, watch.settle.manifest) == ("{name}.done", "*.manifest")
    assert full.metrics.listen == TcpAddress("127.0.0.1", 9464)
    (step,) = watch.step
    assert (full.daemon.concurrency, step.per_directory, step.max_per_minute) == (16, 1, 600)
    assert watch.priorities == (Urgency(patterns=("urgent/",), priority=10),)
    assert isinstance(step, CommandStep)
    assert (step.cwd, step.env, step.user) == (tmp_path, {"LANG": "C.UTF-8"}, "nobody")
    assert step.limits == Limits(cpu=60, memory=512_000_000, files=256)
    daemon = replace(full.daemon, node=plain.daemon.node, concurrency=None)
    settle = replace(watch.settle, marker=None, manifest=None)
    assert watch.on_done == Move(move=str(tmp_path / "archive" / "{date}" / "{relpath}"))
    assert watch.on_quarantine == Move(move=str(tmp_path / "quarantine" / "{relpath}"))
    assert [each.name for each in watch.removed] == ["forget"]
    unset: dict[str, object] = {
        "per_directory": None,
        "max_per_minute": None,
        "cwd": None,
        "env": {},
        "user": None,
    }
    steps = (replace(step, **unset, limits=Limits()),)
    plain_ends = {"on_done": None, "on_quarantine": None, "removed": ()}
    watches = (replace(watch, settle=settle, priorities=(), step=steps, **plain_ends),)
    assert replace(full, daemon=daemon, metrics=Metrics(), watch=watches) == plain
    written = locate.read_toml(path)
    for table, model in (
        (written["daemon"], full.daemon),
        (written["log"], full.log),
        (written["metrics"], full.metrics),
        (written["watch"][0], full.watch[0]),
        (written["watch"][0]["settle"], full.watch[0].settle),
        (written["watch"][0]["step"][0], full.watch[0].step[0]),
        (written["watch"][0]["step"][0]["backoff"], full.watch[0].step[0].backoff),
        (written["watch"][0]["step"][0]["breaker"], full.watch[0].step[0].breaker),
        (written["watch"][0]["step"][0]["limits"], step.limits),
        (written["watch"][0]["priorities"][0], full.watch[0].priorities[0]),
    ):
        assert set(table) == set(model.__struct_fields__)


def test_the_example_shows_the_other_kinds(tmp_path: Path) -> None:
    """What is behind `## ` are steps as they may be, with the defaults of their own keys."""
    lines = EXAMPLE.read_text().splitlines()
    shown = [line.removeprefix("## ") for line in lines]
    (watch,) = load_in(tmp_path, "\n".join(shown)).watch
    _, *others = watch.step
    assert [type(step) for step in others] == [WorkerStep, FunctionStep]
    written = locate.read_toml(tmp_path / "plain.toml")["watch"][0]["step"]
    for step, table in zip(others, written[1:], strict=True):
        plain = {"name", next(kind for kind in KINDS if kind in table)}
        assert step == type(step)(**{key: getattr(step, key) for key in plain})
        common = set(watch.step[0].__struct_fields__)
        assert set(table) - {"name"} == set(step.__struct_fields__) - common


def load_in(folder: Path, text: str) -> Config:
    path = folder / "plain.toml"
    path.write_text(text)
    return load(path)


def test_defaults(write: Write, tmp_path: Path) -> None:
    """What is not written has the documented default."""
    config = load(write(GOOD))
    watch, step = config.watch[0], config.watch[0].step[0]
    assert (config.daemon.store, config.daemon.drain) == ("sqlite", 30.0)
    assert config.daemon.node == os.uname().nodename
    assert config.daemon.state_dir == tmp_path / "state"
    assert (config.log.level, config.log.output) == ("info", "stdout")
    assert config.metrics.listen is None
    assert (watch.include, watch.exclude, watch.create) == ((), (), False)
    assert (watch.existing, watch.mode, watch.interruptions) == ("process", "auto", 3)
    assert (watch.reconcile, watch.poll) == (900.0, 5.0)
    assert (watch.identity, watch.freeze_share) == ("stat", 0.5)
    assert watch.settle == Settle(quiet=2.0, writers="probe", marker=None, manifest=None)
    assert (step.timeout, step.kill_after, step.concurrency, step.attempts) == (300.0, 5.0, 1, 5)
    assert step.backoff == Backoff(first=1.0, factor=2.0, max=300.0, jitter=0.2)
    assert step.breaker == Breaker(after=5, first=1.0, max=300.0)
    assert (step.per_directory, step.max_per_minute, step.on_change) == (None, None, "finish")
    assert (watch.order, watch.priority, watch.priorities) == ("arrival", 0, ())
    assert config.daemon.concurrency is None


def test_steps_in_order(write: Write) -> None:
    """A watch knows its steps in their order."""
    text = GOOD + '[[watch.step]]\nname = "index"\ncommand = ["true"]\n'
    (watch,) = load(write(text)).watch
    assert watch.step_names == ("load", "index")


def test_relative_paths_start_at_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the working folder nor a symbolic link changes which folder is meant."""
    (tmp_path / "link").symlink_to("tree")
    text = GOOD.replace('"tree"', '"other/../link/"') + '[log]\noutput = "log.jsonl"\n'
    write(text)
    monkeypatch.chdir(tmp_path.parent)
    config = load(Path(tmp_path.name) / "config.toml")
    assert config.watch[0].path == tmp_path / "tree"
    assert config.watch[0].root == os.fsencode(tmp_path / "tree")
    assert config.log.output == str(tmp_path / "log.jsonl")
    assert config.daemon.state_dir == tmp_path / "state"


DURATIONS = [
    ('"250ms"', 0.25),
    ('"2s"', 2.0),
    ('"1m30s"', 90.0),
    ('"5m"', 300.0),
    ('"1h"', 3600.0),
    ('"2d"', 172800.0),
    ('"1.5s"', 1.5),
    ('"1d2h3m4s5ms"', 93784.005),
    ("3", 3.0),
    ("0.5", 0.5),
    ("0", 0.0),
]


@pytest.mark.parametrize(("written", "seconds"), DURATIONS)
def test_durations(write: Write, written: str, seconds: float) -> None:
    """A duration is a sum of units, or a number of seconds."""
    config = load(write(f"{GOOD}kill_after = {written}\n"))
    assert config.watch[0].step[0].kill_after == pytest.approx(seconds)


NO_DURATIONS = ['""', '"5"', '"s"', '"1s1m"', '"-1s"', '"1 s"', '"1S"', '"\u0661s"', '"1s\\n"']
NO_DURATIONS += ["-1", "true", "nan", "inf", "[1]", '"3651d"', '"' + "9" * 400 + 's"']


@pytest.mark.parametrize("written", NO_DURATIONS)
def test_no_durations(write: Write, written: str) -> None:
    """Everything else is refused with the forms or the limits that are allowed."""
    (problem,) = problems(write(f"{GOOD}kill_after = {written}\n"))
    assert (problem.line, problem.key) == (9, "watch[0].step[0].kill_after")
    assert "duration" in problem.remedy


COMMAND = 'command = ["true", "{path}"]'
BROKEN = [
    # what is replaced, by what, line, key, what was found, what is allowed
    ('"state"', "5", 2, "daemon.state_dir", "5", "path"),
    ('"state"', '""', 2, "daemon.state_dir", "''", "path"),
    ('"state"', '"a\\u0000"', 2, "daemon.state_dir", "\\x00", "path"),
    ('"state"', '"s"\nnode = ""', 3, "daemon.node", "''", "empty"),
    ('"state"', '"s"\nnode = 5', 3, "daemon.node", "found 5", "text"),
    ('"state"', '"s"\nstor = "sqlite"', 3, "daemon.stor", "unknown", "did you mean store?"),
    ('"state"', '"s"\n"a b" = 1', 3, "daemon.'a b'", "unknown", "node, state_dir"),
    ('"state"', '"s"\nstore = "x"', 3, "daemon.store", "'x'", "'sqlite'"),
    ('"state"', '"s"\nstore = "postgresql://h/d"', 3, "daemon.store", "not supported", "sqlite"),
    ('"state"', '"s"\nruntime_dir = "tree/run"', 3, "daemon.runtime_dir", "inside", "outside"),
    ('"state"', '"tree"', 2, "daemon.state_dir", "inside", "outside"),
    ('"state"', '"tree/deep"', 2, "daemon.state_dir", "inside", "outside"),
    ('"state"', '"."', 5, "watch[0].path", "inside the state folder", "outside"),
    ('"state"', '"s"\n[log]\nlevel = "loud"', 4, "log.level", "'loud'", "'warning'"),
    ('"state"', '"s"\n[log]\noutput = 1', 4, "log.output", "found 1", "text"),
    ('"state"', '"s"\n[log]\noutput = "tree/x"', 4, "log.output", "inside", "outside"),
    ('"state"', '"s"\n[metric]\nlisten = 1', 3, "metric", "unknown", "daemon, log, metrics, watch"),
    ('"state"', '"s"\n[metrics]\nlisten = 1', 4, "metrics.listen", "found 1", "unix:/path"),
    ('"state"', '"s"\n[metrics]\nport = 1', 4, "metrics.port", "unknown", "listen"),
    ('"state"', '"s"\n[metrics]\nlisten = "unix:tree/x"', 4, "metrics.listen", "inside", "outside"),
    ('"tree"', '"absent"', 5, "watch[0].path", "absent", "create = true"),
    ('"tree"', '"plain"', 5, "watch[0].path", "not a folder", "folder"),
    ('"tree"', '"plain/x"\ncreate = true', 5, "watch[0].path", "Not a directory", "folder"),
    ('"tree"', '"a\\u0000"', 5, "watch[0].path", "\\x00", "path"),
    ('"tree"', '"tree"\ncreate = 1', 6, "watch[0].create", "found 1", "true or false"),
    ('"tree"', '"tree"\nmode = "x"', 6, "watch[0].mode", "'x'", "'auto', 'inotify' or 'poll'"),
    ('"tree"', '"tree"\ninclude = "*"', 6, "watch[0].include", "'*'", "a list"),
    ('"tree"', '"tree"\ninclude = [1]', 6, "watch[0].include[0]", "found 1", "text"),
    ('"tree"', '"tree"\nexclude = ["a",\n"[b"]', 6, "watch[0].exclude[1]", "nothing", "close"),
    ('"tree"', '"tree"\nexclude = ["#a"]', 6, "watch[0].exclude[0]", "nothing", "\\#"),
    ('"tree"', '"tree"\nexclude = ["[z-a]"]', 6, "watch[0].exclude[0]", "[z-a]", "gitignore"),
    ('"tree"', '"tree"\nexclude = ["[[:alpha:]]"]', 6, "watch[0].exclude[0]", "no", "gitignore"),
    ('"tree"', '"tree"\nexclude = ["a\\\\"]', 6, "watch[0].exclude[0]", "no", "gitignore"),
    ('"tree"', '"tree"\nexclude = ["a\\nb"]', 6, "watch[0].exclude[0]", "\\n", "one line"),
    ('"tree"', '"tree"\nreconcile = "0s"', 6, "watch[0].reconcile", "'0s'", "more than 0"),
    ('"tree"', '"tree"\npoll = 0', 6, "watch[0].poll", "found 0", "more than 0"),
    ('"tree"', '"tree"\ninterruptions = 0', 6, "watch[0].interruptions", "0", "at least 1"),
    ('"tree"', '"tree"\nsettle.quiet = "x"', 6, "watch[0].settle.quiet", "'x'", "2s"),
    ('"tree"', '"tree"\nidentity = "x"', 6, "watch[0].identity", "'x'", "'stat' or 'content'"),
    ('"tree"', '"tree"\nfreeze_share = 1.1', 6, "watch[0].freeze_share", "1.1", "at most 1"),
    ('"tree"', '"tree"\nfreeze_share = -1', 6, "watch[0].freeze_share", "-1", "at least 0"),
    ('"tree"', '"tree"\nfreeze_share = "x"', 6, "watch[0].freeze_share", "'x'", "a finite number"),
    ('"tree"', '"tree"\nsettle.marker = 5', 6, "watch[0].settle.marker", "found 5", "{stem}"),
    ('"tree"', '"tree"\nsettle.manifest = ""', 6, "watch[0].settle.manifest", "''", "empty"),
    ('"tree"', '"tree"\nsettle.manifest = "a/*"', 6, "watch[0].settle.manifest", "'a/*'", "'/'"),
    ('"tree"', '"tree"\nsettle.manifest = ["*"]', 6, "watch[0].settle.manifest", "list", "text"),
    ('"tree"', '"tree"\nsettle = 5', 6, "watch[0].settle", "found 5", "table"),
    ("[[watch]]", "[watch]", 3, "watch", "a table", "[[...]]"),
    ("[[watch.step]]", "[watch.step]", 6, "watch[0].step", "a table", "[[...]]"),
    ('name = "in"\n', "", 3, "watch[0].name", "missing", 'name = "incoming"'),
    ('name = "in"', 'name = "a/b"', 4, "watch[0].name", "'a/b'", "letters"),
    ('name = "in"', 'name = "a\\n"', 4, "watch[0].name", "'a\\n'", "letters"),
    ('name = "load"', 'name = ""', 7, "watch[0].step[0].name", "''", "letters"),
    ('["true", "{path}"]', '"true"', 8, "watch[0].step[0].command", "'true'", "a list"),
    ('["true", "{path}"]', "[]", 8, "watch[0].step[0].command", "no program", "list"),
    ('["true", "{path}"]', '[""]', 8, "watch[0].step[0].command", "no program", "list"),
    ('"{path}"', '"a\\u0000"', 8, "watch[0].step[0].command[1]", "\\x00", "NUL"),
    ('"{path}"', '"{file}"', 8, "watch[0].step[0].command[1]", "'{file}'", "{relpath}"),
    ('"{path}"', '"{path!r}"', 8, "watch[0].step[0].command[1]", "'{path!r}'", "{path}"),
    ('"{path}"', '"{}"', 8, "watch[0].step[0].command[1]", "'{}'", "{path}"),
    ('"{path}"', '"a{b"', 8, "watch[0].step[0].command[1]", "'{'", "{{"),
    ('"{path}"', '"a}b"', 8, "watch[0].step[0].command[1]", "'}'", "}}"),
    (COMMAND, "worker = []", 8, "watch[0].step[0].worker", "no program", "list"),
    (COMMAND, 'worker = ["{"]\ncommand = ["x"]', 8, "watch[0].step[0].worker", "beside", "one"),
    (COMMAND, 'worker = ["x"]\nprocesses = 0', 9, "watch[0].step[0].processes", "0", "least 1"),
    (COMMAND, 'worker = ["x"]\nbatch = 2', 9, "watch[0].step[0].batch", "unknown", "ping"),
    (COMMAND, 'worker = ["x"]\nconcurrency = 2', 9, "watch[0].step[0].concurrency", "2", "in_fl"),
    (COMMAND, 'function = "x"', 8, "watch[0].step[0].function", "'x'", "module:function"),
    (COMMAND, 'function = "x:y"\npool = 1', 9, "watch[0].step[0].pool", "found 1", "process"),
    (COMMAND, 'function = "x:y"\npath = [1]', 9, "watch[0].step[0].path[0]", "found 1", "path"),
    ('"]', '"]\nconcurrency = 1025', 9, "watch[0].step[0].concurrency", "1025", "at most 1024"),
    ('"]', '"]\nlimits = {files=1}', 9, "watch[0].step[0].limits.files", "1", "most 1073741824"),
    ('"]', '"]\nattempts = true', 9, "watch[0].step[0].attempts", "true", "whole number"),
    ('"]', f'"]\nattempts = "{"x" * 99}"', 9, "watch[0].step[0].attempts", "x...", "whole number"),
    ('"]', f'"]\nconcurrency = 0x{"f" * 9000}', 9, "watch[0].step[0].concurrency", "0xf", "1024"),
    ('"]', f'"]\nbackoff.factor = 0x{"f" * 900}', 9, "watch[0].step[0].backoff.factor", "0xf", "1"),
    ('"]', '"]\nattempts = 1.5', 9, "watch[0].step[0].attempts", "1.5", "whole number"),
    ('"]', '"]\nbackoff.jitter = nan', 9, "watch[0].step[0].backoff.jitter", "nan", "finite"),
    ('"]', '"]\nbackoff.jitter = 2', 9, "watch[0].step[0].backoff.jitter", "2", "at most 1"),
    ('"]', '"]\nbackoff = {factor=0.5}', 9, "watch[0].step[0].backoff.factor", "0.5", "least 1"),
    ('"]', '"]\nbackoff = {first="1h"}', 9, "watch[0].step[0].backoff.first", "3600", "at most"),
    ('"]', '"]\nbackoff = {firts=1}', 9, "watch[0].step[0].backoff.firts", "unknown", "first?"),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "found", "remedy"), BROKEN)
def test_each_problem_is_named(
    write: Write, old: str, new: str, line: int, key: str, found: str, remedy: str
) -> None:
    """One fault gives one problem: its line, its key, what was found and what is allowed."""
    (problem,) = problems(write(GOOD.replace(old, new, 1)))
    assert (problem.line, problem.key) == (line, key)
    assert found in problem.found
    assert remedy in problem.remedy


ADDRESSES = [
    ("127.0.0.1:9464", TcpAddress("127.0.0.1", 9464)),
    ("localhost:1", TcpAddress("localhost", 1)),
    ("0.0.0.0:65535", TcpAddress("0.0.0.0", 65535)),  # noqa: S104 - read, not bound
    ("files-1.example.org:80", TcpAddress("files-1.example.org", 80)),
    ("[::1]:9464", TcpAddress("::1", 9464)),
    ("[fe80::1%eth0]:9464", TcpAddress("fe80::1%eth0", 9464)),
    ("unix:/run/treewarden/m.sock", UnixAddress(Path("/run/treewarden/m.sock"))),
]


@pytest.mark.parametrize(("written", "address"), ADDRESSES)
def test_addresses(write: Write, written: str, address: Address) -> None:
    """A host and a port, IPv6 in brackets, or a socket; and each reads as it was written."""
    config = load(write(f'{GOOD}[metrics]\nlisten = "{written}"\n'))
    assert config.metrics.listen == address
    assert str(address) == written


def test_a_relative_socket_starts_at_the_file(write: Write, tmp_path: Path) -> None:
    """Like every other path."""
    config = load(write(f'{GOOD}[metrics]\nlisten = "unix:run/m.sock"\n'))
    assert config.metrics.listen == UnixAddress(tmp_path / "run" / "m.sock")


NO_ADDRESSES = ["", "9464", ":9464", "::1:9464", "[::1]", "127.0.0.1", "h:9464x", "h: 9464", "h:-1"]
NO_ADDRESSES += ["h:0", "h:65536", "127.1:9464", "1.2.3.256:80", "[h]:80", "[1.2.3.4]:80", "-h:80"]
NO_ADDRESSES += ["a b:80", "h/x:80", "http://h:80", "\u0661:80", "h:\u0661", "unix:", "/run/m.sock"]
NO_ADDRESSES += ["unix:a\\u0000", f"unix:/{'n' * 107}", f"{'h' * 254}:80"]


@pytest.mark.parametrize("written", NO_ADDRESSES)
def test_no_addresses(write: Write, written: str) -> None:
    """What cannot be listened at, or is not clear, is one problem with its line."""
    path = write(f'{GOOD}[metrics]\nlisten = "{written}"\n')
    (problem,) = problems(path)
    assert (problem.line, problem.key) == (10, "metrics.listen")


@pytest.mark.parametrize("absent", ["aiohttp", "prometheus_client"])
def test_metrics_without_the_extra(
    write: Write, monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    """An address is refused where the libraries are not installed, with the command to run."""
    monkeypatch.setitem(sys.modules, absent, None)
    path = write(f'{GOOD}[metrics]\nlisten = "127.0.0.1:9464"\n')
    (problem,) = problems(path)
    assert (problem.line, problem.key) == (10, "metrics.listen")
    assert problem.found == f"127.0.0.1:9464 cannot be served without {absent}"
    assert problem.remedy == f"run {sys.executable} -m pip install 'treewarden[metrics]'"
    assert load(write(GOOD)).metrics.listen is None


NO_MARKERS = ["", "done", "{name}", "{path}.done", "{name}{stem}", "{name}.{name}", "{{name}}.done"]
NO_MARKERS += ["{name}.}", "done/{name}", "{name}.a\\u0000", "{name!r}.done", "{}.done"]
NO_MARKERS += ["{stem}", "{name}" + "\u00fc" * 125]


@pytest.mark.parametrize("written", NO_MARKERS)
def test_no_markers(write: Write, written: str) -> None:
    """A marker that would not tell of one file, or be in its folder, is refused with an example."""
    path = write(GOOD.replace('"tree"', f'"tree"\nsettle.marker = "{written}"'))
    (problem,) = problems(path)
    assert (problem.line, problem.key) == (6, "watch[0].settle.marker")
    assert "'{name}.done'" in problem.remedy


@pytest.mark.parametrize("written", ["{name}.done", ".{stem}", "ok {stem} \u00fc\n"])
def test_markers(write: Write, written: str) -> None:
    """A marker has one placeholder, and beside it whatever a file's name may have."""
    toml = written.replace("\n", "\\n")
    path = write(GOOD.replace('"tree"', f'"tree"\nsettle.marker = "{toml}"'))
    assert load(path).watch[0].settle.marker == written


PLACEHOLDERS = ["{path}", "--in={relpath}", "{name}{watch}{step}", "{{path}}", "{{{path}}}", ""]


@pytest.mark.parametrize("argument", PLACEHOLDERS)
def test_placeholders(write: Write, argument: str) -> None:
    """The known placeholders and doubled braces are accepted, and `str.format` agrees."""
    config = load(write(GOOD.replace("{path}", argument)))
    (step,) = config.watch[0].step
    assert isinstance(step, CommandStep)
    assert step.command == ("true", argument)
    argument.format(path="", relpath="", name="", watch="", step="")


def test_everything_at_once(write: Write) -> None:
    """Faults of form, of names and of folders come in one run, in the order of the file."""
    text = """\
[daemon]
state_dir = "tree/state"
[log]
level = "loud"
[[watch]]
path = "tree"
[[watch]]
name = "b"
path = "tree"
[[watch]]
name = "b"
path = "tree/deeper"
create = true
colour = "red"
[[watch]]
name = "d"
path = "absent"
[[watch.step]]
name = "s"
command = ["true"]
[[watch.step]]
name = "s"
command = ["{x}"]
"""
    assert summary(write(text)) == [
        (2, "daemon.state_dir"),
        (4, "log.level"),
        (5, "watch[0].name"),
        (9, "watch[1].path"),
        (11, "watch[2].name"),
        (12, "watch[2].path"),
        (12, "watch[2].path"),
        (14, "watch[2].colour"),
        (17, "watch[3].path"),
        (22, "watch[3].step[1].name"),
        (23, "watch[3].step[1].command[0]"),
    ]


OVERLAPS = [("tree", "tree"), ("tree", "tree/x"), ("tree/x", "tree"), ("tree", "link")]


@pytest.mark.parametrize(("first", "second"), OVERLAPS)
def test_overlapping_watches(write: Write, tmp_path: Path, first: str, second: str) -> None:
    """No watched folder may be another, or be inside it, not even through a symbolic link."""
    (tmp_path / "tree" / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "tree" / "x")
    text = f'[[watch]]\nname="a"\npath="{first}"\n[[watch]]\nname="b"\npath="{second}"\n'
    (problem,) = problems(write(text))
    assert (problem.line, problem.key) == (6, "watch[1].path")
    assert "watch[0].path" in problem.found


def test_neighbours_do_not_overlap(write: Write, tmp_path: Path) -> None:
    """A folder is not inside another because its name begins alike."""
    (tmp_path / "tree-2").mkdir()
    text = f'{GOOD}[[watch]]\nname = "b"\npath = "tree-2"\n'
    assert len(load(write(text)).watch) == 2


def test_a_tree_beside_the_socket(write: Write) -> None:
    """Only the state folder is closed to watches: a tree may be inside the runtime folder."""
    text = GOOD.replace('"state"', '"state"\nruntime_dir = "."')
    assert load(write(text)).watch[0].name == "in"


def test_the_runtime_folder_follows_the_state_folder(write: Write, tmp_path: Path) -> None:
    """Where nothing says otherwise it is inside the state folder that is configured."""
    assert load(write(GOOD)).daemon.runtime_dir == tmp_path / "state" / "run"


def test_both_own_folders_inside_a_tree(write: Write) -> None:
    """Each that is written is a problem, also where one would lie inside the other by default."""
    path = write(GOOD.replace('"state"', '"tree/state"\nruntime_dir = "tree/state/run"'))
    assert summary(path) == [(2, "daemon.state_dir"), (3, "daemon.runtime_dir")]


def test_a_model_made_by_hand_keeps_its_promise() -> None:
    """What only the whole of a table shows is refused there too, and nothing changes later."""
    with pytest.raises(ValueError, match=r"first: .* longer than max"):
        Backoff(first=9.0, max=1.0)
    with pytest.raises(AttributeError):
        Backoff().max = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="longer than max"):
        replace(Backoff(), max=0.5)


def test_no_home(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home is asked for the folders, and gets none that nobody named."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    path = write(GOOD.replace('state_dir = "state"\n', ""))
    assert summary(path) == [(1, "daemon.state_dir"), (1, "daemon.runtime_dir")]
    with pytest.raises(ConfigError, match="no home folder"):
        locate.state_dir({}, path)


NO_TABLES = [
    ("", None, "watch"),
    ("watch = []", 1, "watch"),
    ("\nwatch = 5", 2, "watch"),
    ("watch = [5]", 1, "watch[0]"),
    ("[watch]", 1, "watch"),
]


@pytest.mark.parametrize(("text", "line", "key"), NO_TABLES)
def test_no_watch(write: Write, text: str, line: int | None, key: str) -> None:
    """A configuration that watches nothing is refused."""
    assert summary(write(text)) == [(line, key)]


def test_daemon_is_no_table(write: Write) -> None:
    """A value where a table belongs is one problem."""
    text = "daemon = 5\n" + GOOD.partition("\n")[2].partition("\n")[2]
    assert summary(write(text)) == [(1, "daemon")]


UNREADABLE = [
    (b"a = 1\nb = \n", 2),
    (b"a = 1\n\xff", 2),
    (b"a = 1\nb = [", 2),
    (b"a = 1\na = 2\n", 2),
    (b"a = " + b"9" * 5000, None),
    (b"a = " + b"[" * 20_000, None),
]


@pytest.mark.parametrize(("content", "line"), UNREADABLE)
def test_not_toml(tmp_path: Path, content: bytes, line: int | None) -> None:
    """What is not TOML is one problem, with its line where the parser knows it."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    (problem,) = problems(path)
    assert problem.line == line or line is None


def test_written_twice(write: Write) -> None:
    """What stands there a second time, or before what it belongs to, is told from a slip."""
    step = '[[watch.step]]\nname = "x"\n[[watch]]\n'
    for text in (GOOD.replace("[[watch]]\n", step), f"{GOOD}timeout = 1\ntimeout = 2\n"):
        (problem,) = problems(write(text))
        assert problem.line
        assert problem.remedy == "write it once, and [[watch.step]] below its [[watch]]"


def test_a_byte_order_mark(write: Write) -> None:
    """Some editors begin with one: it changes nothing, neither what is read nor the lines."""
    assert load(write(f"\ufeff{GOOD}")).watch[0].name == "in"
    assert summary(write(f"\ufeff{GOOD}bogus = 1\n")) == [(9, "watch[0].step[0].bogus")]


def test_no_file(tmp_path: Path) -> None:
    """A missing file, and a folder in its place, are problems that say how to name another."""
    for path in (tmp_path / "absent.toml", tmp_path):
        (problem,) = problems(path)
        assert "--config" in problem.remedy


def test_the_report_reads_well(write: Write) -> None:
    """A problem is one line: file, line, key, what was found; what to do."""
    path = write(GOOD + 'timeout = "soon"\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}:9: watch[0].step[0].timeout: found 'soon'; "
        'write a duration such as "250ms", "2s", "1m30s", "1h" or "2d", or seconds'
    )


def test_find_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option wins over the variable, and the variable over the system's file."""
    monkeypatch.setenv("TREEWARDEN_CONFIG", "/b.toml")
    assert locate.find_config("/a.toml") == Path("/a.toml")
    assert locate.find_config(None) == Path("/b.toml")
    monkeypatch.delenv("TREEWARDEN_CONFIG")
    assert locate.find_config(None) == Path("/etc/treewarden/config.toml")


FOLDERS = [
    # environment, user, state folder, runtime folder
    ({}, 0, "/var/lib/treewarden", "/run/treewarden"),
    ({}, 1000, "/h/.local/state/treewarden", "/h/.local/state/treewarden/run"),
    ({"XDG_STATE_HOME": "/x", "XDG_RUNTIME_DIR": "/r"}, 1000, "/x/treewarden", "/r/treewarden"),
    ({"XDG_STATE_HOME": "x"}, 1000, "/h/.local/state/treewarden", None),
    ({"STATE_DIRECTORY": "/s1:/s2", "RUNTIME_DIRECTORY": "/r1:/r2"}, 1000, "/s1", "/r1"),
    ({"STATE_DIRECTORY": "/s", "RUNTIME_DIRECTORY": "/r"}, 0, "/s", "/r"),
]


@pytest.mark.parametrize(("environment", "user", "state", "runtime"), FOLDERS)
def test_default_folders(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    user: int,
    state: str,
    runtime: str | None,
) -> None:
    """The folders of systemd come before the system's for root, and before XDG's for a user."""
    for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert locate.state_dir({}, Path("/c/config.toml")) == Path(os.path.realpath(state))
    if runtime:
        found = locate.runtime_dir({}, Path("/c/config.toml"))
        assert found == Path(os.path.realpath(runtime))


def test_locating_needs_no_models() -> None:
    """The commands that only read do not pay for what they need not check."""
    program = "import sys, daemon.locate; sys.exit('daemon.config' in sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


LINES = '''\
# [not] = "a header"
top = 1 # it's
"quo\\"ted" . 'li.teral' = """
[x]
a = 1 """" # three close it, one belongs to it
raw = \'\'\'
[[y]]\'\'\'\'
list = [ # "comment ]
  "]", ']', { a = "}", b = [1] },
]
[ a . "b c" ]
k.l.m = { n = 1 }
[[w]]
n = ''
[w.s]
q = ""
[[w.t]]
z = 1979-05-27 07:32:00
[[w.t]]
[[w]]
[[w.t]]
end = 0
'''

LOCATIONS = [
    (("top",), 2),
    (('quo"ted', "li.teral"), 3),
    (("x",), None),
    (("raw",), 6),
    (("list", 0, "a"), 8),
    (("a", "b c"), 11),
    (("a", "b c", "k", "l", "m", "n"), 12),
    (("a", "b c", "missing"), 11),
    (("w", 0), 13),
    (("w", 0, "n"), 14),
    (("w", 0, "s", "q"), 16),
    (("w", 0, "t", 0, "z"), 18),
    (("w", 0, "t", 1), 19),
    (("w", 1), 20),
    (("w", 1, "t", 0, "end"), 22),
    ((), None),
]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(("location", "line"), LOCATIONS)
def test_lines(location: tuple[str | int, ...], line: int | None, newline: str) -> None:
    """Every way to write a key leads to its line; strings and lists do not pass for headers."""
    assert line_of(line_numbers(LINES.replace("\n", newline)), location) == line
