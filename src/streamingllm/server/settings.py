"""Settings of a server, each with its default, its unit, its meaning and an example."""

from __future__ import annotations

from dataclasses import Field, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

from streamingllm.errors import ConfigError
from streamingllm.server.setting_fields import facts_of, setting

if TYPE_CHECKING:
    from streamingllm.sessions.session_settings import SessionSettings
    from streamingllm.stream.sampling import SamplingParams

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_AT_LEAST_ONE = ("max_streams", "max_requests_per_key", "default_max_tokens", "cache_size")
_model = partial(setting, "Model")
_window = partial(setting, "Window and slots")
_address = partial(setting, "Address and browsers")
_keys = partial(setting, "Keys")
_answers = partial(setting, "Answers")
_limits = partial(setting, "Limits")
_storage = partial(setting, "Storage and tiers")
_retention = partial(setting, "Retention")
_memory = partial(setting, "Memory")
_notices = partial(setting, "Notices to people")
_operation = partial(setting, "Log and shutdown")


@dataclass(frozen=True)
class ServerSettings:
    """Decide what a server serves, to whom, and within which bounds.

    Sizes in bytes are written as 500MB or 2GB. A list is repeated on the command line.

    Raises:
        ConfigError: a public address without keys, or a value out of range.
    """

    # fmt: off
    model: str = _model(
        "smollm2-135m-instruct", "text", "A catalog name, a hub id, a folder or a .gguf file.",
        "./model.gguf")
    model_alias: tuple[str, ...] = _model(
        (), "texts", "Another name that requests may use.", "gpt-4o-mini")
    quantize: str = _model(
        "auto", "text", "Bits of the weights: auto keeps those of a quantised GGUF file.", "int4",
        choices=("auto", "none", "native", "int8", "int4"))
    quantize_cache: str = _model(
        "none", "text", "Store the window in eight bits.", "int8", choices=("none", "int8"))
    dtype: str = _model(
        "auto", "text", "Number format of the weights.", "bfloat16",
        choices=("auto", "float64", "float32", "bfloat16", "float16"))
    device: str = _model("auto", "text", "Device: auto, cpu, cuda, cuda:0 or mps.", "cpu")
    threads: int | None = _model(
        None, "integer", "Processor threads.", "2", "threads", default_text="all")
    compile: bool = _model(True, "flag", "Compile the decode step in the background.", "false")

    cache_size: int = _window(
        1024, "integer", "Tokens that a session sees, pinned ones included.", "2048", "tokens")
    max_streams: int = _window(
        16, "integer", "Sessions that generate at once, each in a slot.", "8", "slots")
    eviction: str = _window(
        "token", "text", "Evict single tokens or whole turns.", "turn", choices=("token", "turn"))
    max_pinned_tokens: int | None = _window(
        None, "integer", "Longest system prompt with tools.", "512", "tokens",
        default_text="three quarters of cache_size")
    max_rewind_tokens: int | None = _window(
        None, "integer", "Tokens that are taken back without a replay.", "256", "tokens",
        default_text="a quarter of cache_size")
    system_prompt: str = _window(
        "", "text", "Pinned in sessions that bring none.", "You are a helpful assistant.")
    max_stall: float = _window(
        4.0, "number", "Longest step that prefills, as a multiple of one that does not.", "2",
        "times")

    host: str = _address(
        "127.0.0.1", "text", "Address to listen on; another one needs keys.", "0.0.0.0")
    port: int = _address(8080, "integer", "Port to listen on; 0 for a free one.", "8081")
    allowed_host: tuple[str, ...] = _address(
        (), "texts", "Further host name of a server on loopback.", "chat.example.org")
    cors_origin: tuple[str, ...] = _address(
        (), "texts", "Origin of pages that may call.", "https://chat.example.org")
    page: bool = _address(True, "flag", "Serve the page at /.", "false")

    api_key: tuple[str, ...] = _keys(
        (), "texts", "Key of a client; each sees its own sessions.", "KEY", is_secret=True)
    api_key_file: str = _keys("", "text", "File of keys, one a line.", "keys.txt")
    metrics_key: str = _keys(
        "", "text", "Key of /metrics, which no other key opens then.", "KEY", is_secret=True)
    max_requests_per_key: int = _keys(
        64, "integer", "Requests of one key at once.", "16", "requests")
    max_requests_per_minute: int = _keys(
        0, "integer", "Requests of one key; 0 for any number.", "120", "requests")

    default_temperature: float = _answers(
        0.7, "number", "Temperature of requests without one.", "0")
    default_top_p: float = _answers(0.95, "number", "top_p of requests without one.", "1")
    default_max_tokens: int = _answers(
        1024, "integer", "max_tokens of requests without one.", "512", "tokens")
    turn_seconds: float = _answers(
        600.0, "number", "An answer ends after so long.", "120", "seconds")
    on_disconnect: str = _answers(
        "keep", "text", "Keep a partial answer when its client goes away, or take the turn back.",
        "rollback", choices=("keep", "rollback"))
    ping_seconds: float = _answers(
        15.0, "number", "Comment in a stream that has nothing to say.", "5", "seconds")

    max_waiting: int = _limits(256, "integer", "Turns that may wait for a slot.", "64", "turns")
    max_body_bytes: int = _limits(16 << 20, "bytes", "Longest request.", "4MB", "bytes")
    max_message_characters: int = _limits(
        4_000_000, "integer", "Longest message.", "100000", "characters")

    data_dir: str = _storage(
        "", "text", "Folder of sessions and snapshots.", "./chats",
        default_text="the user's data folder")
    database: str = _storage(
        "", "text", "PostgreSQL database of the sessions, which several servers share.",
        "postgresql://user@host/name", default_text="a file in data_dir", is_secret=True)
    snapshots: str = _storage(
        "", "text", "Folder or fsspec URL of snapshots.", "s3://bucket/snapshots",
        default_text="a folder in data_dir")
    host_memory: int = _storage(
        1 << 30, "bytes", "Bound on the states of idle sessions in memory.", "4GB", "bytes")
    disk: int = _storage(8 << 30, "bytes", "Bound on the snapshots on disk.", "50GB", "bytes")
    snapshot_seconds: float = _storage(
        10.0, "number", "An idle session gets a snapshot after so long.", "60", "seconds")
    restore: str = _storage(
        "exact", "text", "Replay every token since the last snapshot, or the last ones only.",
        "tail", choices=("exact", "tail"))
    replay_tokens: int = _storage(
        0, "integer", "Length of the tail that restore=tail replays; 0 for four times cache_size.",
        "2048", "tokens")

    session_ttl_seconds: float = _retention(
        0.0, "number", "Delete idle sessions; 0 for never.", "604800", "seconds")
    response_ttl_seconds: float = _retention(
        30 * 86400.0, "number", "Delete stored responses.", "86400", "seconds")
    max_responses: int = _retention(
        100_000, "integer", "Stored responses; the oldest go first.", "10000", "responses")

    memory: bool = _memory(
        False, "flag", "Put back into the window what left it and a message is about.", "true")
    memory_encoder: str = _memory(
        "", "text", "Encoder of the memory: minilm or a folder; without one words alone count.",
        "minilm")
    memory_tool: bool = _memory(
        False, "flag", "Let models that call tools search the memory themselves.", "true")
    recall_share: float = _memory(
        0.2, "number", "Share of the cache that recalled texts take at most.", "0.3")
    recall_removal: str = _memory(
        "rollout", "text", "Let recalled texts roll out, or take them out after the answer.",
        "rewind", choices=("rollout", "rewind"))

    disclosure: str = _notices(
        "", "text", "Text that goes with a session's first answer.", "You talk to a machine.")
    reminder: str = _notices(
        "", "text", "Text that is repeated in every session.", "This is a machine.")
    reminder_seconds: float = _notices(
        3 * 3600.0, "number", "Time between two reminders.", "3600", "seconds")

    log_level: str = _operation(
        "info", "text", "Least level of the lines of the log.", "warning",
        choices=("debug", "info", "warning", "error"))
    log_user_text: bool = _operation(
        False, "flag", "Write what users say, and the answers, to the log.", "true")
    drain_seconds: float = _operation(
        30.0, "number", "Running turns may end after SIGTERM.", "120", "seconds")
    # fmt: on

    def __post_init__(self) -> None:
        if not self.is_loopback and not self.keys:
            raise ConfigError(
                f"host={self.host!r} is reachable by others, and there is no key; set api_key or "
                "listen on 127.0.0.1"
            )
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is less than 1; choose a greater")
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port={self.port} is no port; choose 0 to 65535")
        for found in fields(self):
            value, choices = getattr(self, found.name), facts_of(found).choices
            if choices and value not in choices:
                raise ConfigError(
                    f"{found.name}={value!r} is unknown; choose {' or '.join(choices)}"
                )
        if not all(key.strip() for key in self.keys):
            raise ConfigError("api_key is empty; give a key, or leave it out for none")
        if self.memory_tool and not self.memory:
            raise ConfigError("memory_tool=True needs a memory; set memory as well")
        if self.metrics_key in self.keys:
            raise ConfigError("metrics_key is a client's key as well; choose another")
        self.sampling_defaults()
        self.session_settings()

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can connect."""
        return self.host in _LOOPBACK

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of all clients."""
        return self.api_key

    @property
    def model_aliases(self) -> tuple[str, ...]:
        """Further names that requests may use for the model."""
        return (self.model, *self.model_alias)

    @property
    def pinned_bound(self) -> int:
        """Longest pinned prefix in tokens."""
        most = self.max_pinned_tokens
        return 3 * self.cache_size // 4 if most is None else most

    @property
    def rewind_bound(self) -> int:
        """Tokens that are taken back without a replay."""
        return self.cache_size // 4 if self.max_rewind_tokens is None else self.max_rewind_tokens

    def sampling_defaults(self) -> SamplingParams:
        """Return the sampling parameters of a request that names none."""
        from streamingllm.stream.sampling import SamplingParams

        return SamplingParams(
            temperature=self.default_temperature,
            top_p=self.default_top_p,
            max_new_tokens=self.default_max_tokens,
        )

    def session_settings(self) -> SessionSettings:
        """Return what a session manager is told."""
        from streamingllm.sessions.session_settings import SessionSettings

        return SessionSettings(
            eviction=self.eviction,  # type: ignore[arg-type]  # one of the choices
            system_prompt=self.system_prompt,
            host_bytes=self.host_memory,
            disk_bytes=self.disk,
            max_waiting=self.max_waiting,
            max_message_characters=self.max_message_characters,
            turn_seconds=self.turn_seconds,
            snapshot_after_seconds=self.snapshot_seconds,
            restore=self.restore,  # type: ignore[arg-type]
            replay_tokens=self.replay_tokens,
            on_disconnect=self.on_disconnect,  # type: ignore[arg-type]
            session_ttl_seconds=self.session_ttl_seconds or None,
            response_ttl_seconds=self.response_ttl_seconds,
            max_responses=self.max_responses,
            disclosure=self.disclosure,
            reminder=self.reminder,
            reminder_seconds=self.reminder_seconds,
            recall_share=self.recall_share,
            has_memory_tool=self.memory_tool,
            recall_rewind_tokens=self.rewind_bound if self.recall_removal == "rewind" else 0,
        )


def setting_fields() -> tuple[Field[Any], ...]:
    """Return all settings, for those who load or document them."""
    return fields(ServerSettings)
