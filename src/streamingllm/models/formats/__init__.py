"""Quantised checkpoints of other makers: each format read tensor by tensor."""
