"""How `show` tells of a file, as JSON and as text."""

import json

from daemon.cli.json_form import of_file
from daemon.cli.text_form import of_file as text_of_file
from daemon.core.model import Key, Record, Row

ROW = Row(1, Key("w", b"a"), "ready", 4, "index", result='{"id": "\u00fc", "n": 5}')
MOVED = Record(
    9, 1, "w", b"a", "succeed", "processing", "gone", 6, "a-1", "n", 0, target=b"/srv/\xff"
)


def test_result() -> None:
    """What the step before has handed on is JSON in JSON, and as it was said in text."""
    assert json.loads(of_file(ROW, [], 0))["result"] == {"id": "\u00fc", "n": 5}
    assert any("result" in line and '"n": 5' in line for line in text_of_file(ROW, [], 0))


def test_target() -> None:
    """Where a file was taken is readable, and exact where it is not UTF-8."""
    (transition,) = json.loads(of_file(ROW, [MOVED], 0))["transitions"]
    assert (transition["target"], transition["target_b64"]) == ("/srv/\\xff", "L3Nydi//")
    assert any("target=/srv/\\xff" in line for line in text_of_file(ROW, [MOVED], 0))
