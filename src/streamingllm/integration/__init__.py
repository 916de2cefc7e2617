"""Streaming on a transformers model: attach, adapters, self-check, fused modules, SinkCache."""
