"""Schema of the capabilities that a page or a client asks for."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from streamingllm.server.schemas.common import AnswerModel

Capability = Literal["rewind", "fork", "export", "stop", "facts", "forget", "truncation"]
ALL: tuple[Capability, ...] = get_args(Capability)


class Capabilities(AnswerModel):
    """Say what can be done with sessions here."""

    object: Literal["capabilities"] = "capabilities"
    answers: Literal["responses", "chat.completions"] = Field(
        description="API whose answers go on with a session; responses run without a listener."
    )
    can: list[Capability] = Field(
        description="Routes of a session that are there; `truncation`: that a request may forbid "
        "to forget."
    )
