"""Names that no step may have: what is done with a file in the end goes by them."""

ON_DONE = "on_done"
ON_QUARANTINE = "on_quarantine"
RESERVED = frozenset({ON_DONE, ON_QUARANTINE})
