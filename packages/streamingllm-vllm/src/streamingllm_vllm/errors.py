"""Errors of the plugin."""

from __future__ import annotations


class UnsupportedDeploymentError(ValueError):
    """Name the setting of a deployment that streaming mode does not support."""
