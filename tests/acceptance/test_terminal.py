"""Whatever files are called and handlers say: a person who asks reads text, and nothing else."""

import pytest

from tests.acceptance.sites import Site

# Clears the screen, writes from right to left, ends the line, and is half a character.
NASTY = "\x1b[2J\u202e\r\x85\udcff"
# The same from a shell.
SAID = r"\033[2J\342\200\256\r\302\205\377"
QUESTIONS = (
    *(("status", None), ("ls", None)),
    *((command, name) for command in ("show", "explain") for name in ("bad", "away")),
)


@pytest.fixture
def told(site: Site) -> Site:
    """A site where one file was refused and taken aside, and another waits for an open step."""
    first = site.script("first", r"""printf '"\342\200\256"'""")
    body = f"printf '{SAID}' >&2; case \"$1\" in */bad*) exit 65;; *) exit 69;; esac"
    second = f'command = [{site.script("second", body)}, "{{path}}"]\nunavailable = [69]'
    (site.folder / "aside").mkdir()
    breaker = 'breaker = { after = 1, first = "1h", max = "1h" }'
    watch = site.watch(
        f'name = "first"\ncommand = [{first}]\nresult = "stdout"',
        f'name = "second"\n{second}\n{breaker}',
        on_quarantine={"move": "MOVE"},
    )
    move = f'{{ move = "{site.folder}/aside/{{name}}" }}'
    site.configure(watch.replace('{"move": "MOVE"}', move))
    daemon = site.start().ready()
    (site.tree / f"bad{NASTY}").write_text("x")
    daemon.line("vanish", cause="on_quarantine")
    (site.tree / f"away{NASTY}").write_text("x")
    daemon.line("daemon.step_open")
    # The daemon writes it down for onlookers a moment later; each question takes a moment, too.
    while "open for" not in site.run("status", "--config", str(site.config)).stdout:
        pass
    return site


def test_nothing_that_a_terminal_obeys(told: Site) -> None:
    """Names, errors, results and places come as escapes, and nothing is left out for that."""
    answers = {}
    for command, name in QUESTIONS:
        path = () if name is None else (name + NASTY,)
        answer = told.run(command, "--config", str(told.config), *path)
        assert answer.stderr == ""
        assert [line for line in answer.stdout.split("\n") if not line.isprintable()] == []
        assert r"\x1b[2J\u202e" in answer.stdout
        answers[command, name] = answer.stdout
    assert r'result    "\u202e"' in answers["show", "away"]
    assert "target=" in answers["show", "bad"]
    assert "it was taken to" in answers["explain", "bad"]
