"""The system prompt of a chat that is given none."""

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."
