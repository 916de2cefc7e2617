"""Routes of each API."""
