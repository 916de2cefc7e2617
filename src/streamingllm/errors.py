"""The errors this library raises; each message is one line that says what is allowed."""


class StreamingLLMError(Exception):
    """Base of every error that streamingllm raises on purpose."""


class ConfigError(StreamingLLMError, ValueError):
    """A setting is out of range: the message names the field, the value and what is allowed."""


class InputError(StreamingLLMError, ValueError):
    """Token ids, text or masks cannot be used as given."""


class UnsupportedModelError(StreamingLLMError):
    """A model cannot stream: the message gives the reason and the alternatives."""


class UnsupportedFeatureError(StreamingLLMError, NotImplementedError):
    """A model can stream, but not together with the named feature."""


class SnapshotError(StreamingLLMError):
    """A snapshot cannot be written, is damaged, or belongs to another model or configuration."""


class RewindError(StreamingLLMError, ValueError):
    """A stream was asked to go back further than it remembers."""


class ModelLoadError(StreamingLLMError):
    """A model cannot be found, fetched or read."""


class CapacityError(StreamingLLMError):
    """An engine is full: the message names the bound that was met."""


class ContextLengthError(InputError):
    """A request does not fit into the cache, and nothing may be dropped for it."""


class SessionNotFoundError(StreamingLLMError, LookupError):
    """A store holds no session of that id."""


class ResponseNotFoundError(StreamingLLMError, LookupError):
    """A store holds no response of that id."""


class FactNotFoundError(StreamingLLMError, LookupError):
    """A session pins no fact of that id."""


class SessionConflictError(StreamingLLMError):
    """A session exists already, or another writer has changed it since it was read."""


class StaleLeaseError(SessionConflictError):
    """Another process has taken over a session since this one has used it."""


class SessionBusyError(SessionConflictError):
    """Another process runs a turn of the session."""


def first_line(error: BaseException) -> str:
    """Return the first line with text of an error's message, else the name of its class.

    Errors of other libraries have messages of many lines; ours and the log's have one. If a program
    failed (`subprocess.CalledProcessError`), the first line is that of its standard error.
    """
    text = getattr(error, "stderr", None)
    if text is None:
        text = str(error)
    elif isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines = (line.strip() for line in str(text).splitlines())
    return next(filter(None, lines), type(error).__name__)
