"""Serve the routes of each API."""
