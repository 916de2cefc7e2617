"""One program per peer, run by that peer's own Python."""
