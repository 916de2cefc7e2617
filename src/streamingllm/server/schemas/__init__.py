"""Requests and answers of each API, field by field."""
