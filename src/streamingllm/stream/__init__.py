"""One endless sequence: feed, generate, rewind, fork, save."""

from streamingllm.stream.stream import Stream as Stream
