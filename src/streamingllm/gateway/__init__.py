"""The gateway: log and recall in front of any server with OpenAI's API."""
