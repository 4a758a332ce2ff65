"""A file that takes the daemon down with it ends in quarantine, and no file that was beside it."""

from tests.acceptance.sites import Site

HANDLER = """
echo "$TREEWARDEN_RELPATH" >"$EFFECTS"
case "$TREEWARDEN_RELPATH" in
poison) read x <"$POISON"; kill -KILL "$PPID" ;;
*) read x <"$GATE" ;;
esac
"""
BESIDE = {b"a", b"b", b"poison"}


def test_poison_is_found_and_bystanders_are_not_blamed(site: Site) -> None:
    """Three times killed: twice beside others, who are tried alone then, as the poison is."""
    effects, gate, poison = site.effects(), site.gate(), site.gate("POISON")
    step = f'name = "s"\ncommand = [{site.script("handler", HANDLER)}]\nconcurrency = 3'
    site.configure(site.watch(step))
    for name in BESIDE:
        (site.tree / name.decode()).write_bytes(name)
    for round_ in (1, 2):
        daemon = site.start()
        assert {effects.next() for _ in BESIDE} == BESIDE
        poison.open()
        assert daemon.wait() == -9
        # What the daemon left behind.
        gate.open(2)
        assert set(site.sql("SELECT state, interruptions FROM files")) == {
            ("processing", round_ - 1)
        }
    daemon = site.start().ready()
    (site.tree / "late").write_text("late")
    tried = set()
    while (name := effects.next()) != b"poison":
        if name != b"late":
            assert effects.rest() == []
            assert len(site.sql("SELECT 1 FROM files WHERE state = 'processing'")) == 1
        tried.add(name)
        gate.open()
        daemon.done(name.decode())
    assert effects.rest() == []
    assert len(site.sql("SELECT 1 FROM files WHERE state = 'processing'")) == 1
    poison.open()
    assert daemon.wait() == -9
    daemon = site.start().ready()
    for _ in {b"a", b"b", b"late"} - tried:
        effects.next()
        gate.open()
    line = daemon.line("interrupt", path="poison")
    assert (line["to_state"], line["cause"]) == ("quarantined", "crash")
    states = "SELECT name, state, interruptions FROM files WHERE name != CAST('poison' AS BLOB)"
    daemon.wait_for(
        lambda _: {row[1] for row in site.sql(states)} == {"done"}, "end of the bystanders"
    )
    daemon.stop()
