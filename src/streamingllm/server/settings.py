"""Settings of a server, each with its default and its meaning."""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from streamingllm.errors import ConfigError

if TYPE_CHECKING:
    from streamingllm.sessions.session_settings import SessionSettings
    from streamingllm.stream.sampling import SamplingParams

Kind = Literal["text", "texts", "integer", "number", "flag", "bytes"]
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HELP, _KIND = "help", "kind"


def _setting(default: Any, kind: Kind, text: str, *, is_secret: bool = False) -> Any:
    return field(default=default, repr=not is_secret, metadata={_KIND: kind, _HELP: text})


@dataclass(frozen=True)
class ServerSettings:
    """Decide what a server serves, to whom, and within which bounds.

    Sizes in bytes are written as 500MB or 2GB. A list is repeated on the command line.

    Raises:
        ConfigError: a public address without keys, or a value out of range.
    """

    model: str = _setting(
        "smollm2-135m-instruct", "text", "A catalog name, a hub id, a folder or a .gguf file."
    )
    model_alias: tuple[str, ...] = _setting((), "texts", "Another name that requests may use.")
    quantize: str = _setting("auto", "text", "Weights: auto, none, native, int8 or int4.")
    quantize_cache: str = _setting("none", "text", "The window: none or int8.")
    dtype: str = _setting("auto", "text", "auto, float32, bfloat16 or float16.")
    device: str = _setting("auto", "text", "auto, cpu, cuda or mps.")
    threads: int | None = _setting(None, "integer", "Processor threads; all by default.")
    compile: bool = _setting(True, "flag", "Compile the decode step in the background.")
    host: str = _setting("127.0.0.1", "text", "Address to listen on; another one needs keys.")
    port: int = _setting(8080, "integer", "Port to listen on; 0 for a free one.")
    data_dir: str = _setting(
        "", "text", "Folder of sessions and snapshots; by default the user's data folder."
    )
    cache_size: int = _setting(1024, "integer", "Tokens that a session sees, pinned ones included.")
    max_streams: int = _setting(16, "integer", "Sessions that generate at once, each in a slot.")
    max_pinned_tokens: int | None = _setting(
        None, "integer", "Longest system prompt with tools; three quarters of the cache by default."
    )
    max_rewind_tokens: int | None = _setting(
        None, "integer", "Tokens that are taken back without a replay; a quarter of the cache."
    )
    max_stall: float = _setting(
        4.0, "number", "Bound on a step that prefills, as a multiple of one that does not."
    )
    eviction: str = _setting("token", "text", "token, or turn for whole turns.")
    system_prompt: str = _setting("", "text", "Pinned in sessions that bring none.")
    default_temperature: float = _setting(0.7, "number", "Of requests without one.")
    default_top_p: float = _setting(0.95, "number", "Of requests without one.")
    default_max_tokens: int = _setting(1024, "integer", "Of requests without one.")
    api_key: tuple[str, ...] = _setting(
        (), "texts", "Key of a client; each sees its own sessions.", is_secret=True
    )
    api_key_file: str = _setting("", "text", "File of keys, one a line.")
    max_requests_per_key: int = _setting(64, "integer", "Requests of one key at once.")
    max_requests_per_minute: int = _setting(0, "integer", "Requests of one key; 0 for any number.")
    max_waiting: int = _setting(256, "integer", "Turns that may wait for a slot.")
    max_body_bytes: int = _setting(16 << 20, "bytes", "Longest request.")
    max_message_characters: int = _setting(4_000_000, "integer", "Longest message.")
    turn_seconds: float = _setting(600.0, "number", "An answer ends after so long.")
    host_memory: int = _setting(1 << 30, "bytes", "Bound on the states of idle sessions in memory.")
    disk: int = _setting(8 << 30, "bytes", "Bound on the snapshots on disk.")
    snapshot_seconds: float = _setting(10.0, "number", "An idle session gets a snapshot.")
    restore: str = _setting(
        "exact", "text", "exact replays every token since the last snapshot; tail the last ones."
    )
    on_disconnect: str = _setting(
        "keep", "text", "keep the partial answer when a client goes away, or rollback."
    )
    session_ttl_seconds: float = _setting(0.0, "number", "Delete idle sessions; 0 for never.")
    response_ttl_seconds: float = _setting(30 * 86400.0, "number", "Delete stored responses.")
    max_responses: int = _setting(100_000, "integer", "Stored responses; the oldest go first.")
    disclosure: str = _setting("", "text", "Text that goes with a session's first answer.")
    reminder: str = _setting("", "text", "Text that is repeated in every session.")
    reminder_seconds: float = _setting(3 * 3600.0, "number", "Time between two reminders.")
    cors_origin: tuple[str, ...] = _setting((), "texts", "Origin of pages that may call.")
    allowed_host: tuple[str, ...] = _setting((), "texts", "Further host names of this server.")
    log_level: str = _setting("info", "text", "debug, info, warning or error.")
    log_user_text: bool = _setting(False, "flag", "Write what users say to the log.")
    ping_seconds: float = _setting(15.0, "number", "Comment in a stream that has nothing to say.")
    drain_seconds: float = _setting(30.0, "number", "Running turns may end after SIGTERM.")
    page: bool = _setting(True, "flag", "Serve the page at /.")

    def __post_init__(self) -> None:
        if not self.is_loopback and not self.keys:
            raise ConfigError(
                f"host={self.host!r} is reachable by others, and there is no key; set api_key or "
                "listen on 127.0.0.1"
            )
        for name in ("max_streams", "max_requests_per_key", "default_max_tokens", "cache_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} is less than 1; choose a greater")
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"port={self.port} is no port; choose 0 to 65535")
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
            eviction=self.eviction,  # type: ignore[arg-type]  # checked there
            system_prompt=self.system_prompt,
            host_bytes=self.host_memory,
            disk_bytes=self.disk,
            max_waiting=self.max_waiting,
            max_message_characters=self.max_message_characters,
            turn_seconds=self.turn_seconds,
            snapshot_after_seconds=self.snapshot_seconds,
            restore=self.restore,  # type: ignore[arg-type]
            on_disconnect=self.on_disconnect,  # type: ignore[arg-type]
            session_ttl_seconds=self.session_ttl_seconds or None,
            response_ttl_seconds=self.response_ttl_seconds,
            max_responses=self.max_responses,
            disclosure=self.disclosure,
            reminder=self.reminder,
            reminder_seconds=self.reminder_seconds,
        )


def setting_fields() -> tuple[Field[Any], ...]:
    """Return all settings, for those who load or document them."""
    return fields(ServerSettings)


def kind_of(setting: Field[Any]) -> Kind:
    """Return what values a setting takes."""
    kind: Kind = setting.metadata[_KIND]
    return kind


def help_of(setting: Field[Any]) -> str:
    """Return what a setting means."""
    text: str = setting.metadata[_HELP]
    return text
