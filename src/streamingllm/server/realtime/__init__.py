"""The realtime API over WebSocket, for text."""
