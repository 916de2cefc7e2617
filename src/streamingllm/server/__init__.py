"""Serve sessions over HTTP and WebSocket: routes and schemas only."""
