"""The commands of a chat, from lines to lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from streamingllm.errors import InputError, RewindError
from streamingllm.sessions import Conversation

_MARK = "/"
_SHOWN_CHARACTERS = 40


def is_command(text: str) -> bool:
    """Tell a command, which stands on a line of its own, from a text such as a pasted path."""
    return text.lstrip().startswith(_MARK) and "\n" not in text


class ChatCommands:
    """Branches of a conversation, and what a user can do with them.

    A command that fails leaves everything as it was.

    Args:
        conversation: the first branch.
        show: called with a line about work that takes long, before it begins.
    """

    def __init__(self, conversation: Conversation, show: Callable[[str], None]) -> None:
        self.branches = [conversation]
        self.is_over = False
        self._current = 0
        self._show = show
        self._commands: dict[str, tuple[str, str, Callable[[str], str]]] = {
            "/rewind": ("[TURNS]", "take back the last turn, or so many", self._rewind),
            "/fork": ("", "go on in a branch of its own", self._fork),
            "/branches": ("", "list the branches", self._list_branches),
            "/switch": ("BRANCH", "go on with another branch", self._switch),
            "/save": ("FILE", "save this branch", self._save),
            "/load": ("FILE", "go on with a saved one, as a new branch", self._load),
            "/help": ("", "list the commands", self._help),
            "/quit": ("", "leave; Ctrl-D does so too", self._quit),
        }

    @property
    def conversation(self) -> Conversation:
        """The branch that goes on."""
        return self.branches[self._current]

    def run(self, line: str) -> str:
        """Carry out a line such as `/rewind 2` and return what to tell the user.

        Raises:
            StreamingLLMError: it cannot be done; the message says why.
        """
        name, _, argument = line.strip().partition(" ")
        if name not in self._commands:
            raise InputError(f"{name} is unknown; choose one of {', '.join(self._commands)}")
        parameter, _, command = self._commands[name]
        argument = argument.strip()
        if argument and not parameter:
            raise InputError(f"{name} takes no {argument!r}; give {name} alone")
        if not argument and parameter.isalpha():
            raise InputError(f"{name} lacks {parameter}; give it after {name}")
        return command(argument)

    def _rewind(self, argument: str) -> str:
        num_turns = _whole_number("/rewind", argument) if argument else 1
        conversation = self.conversation
        try:
            conversation.rewind(num_turns)
        except RewindError:
            remembered = conversation.stream.config.max_rewind_tokens
            tokens = conversation.num_tokens_before(num_turns)
            self._show(
                f"further back than max_rewind_tokens={remembered}: reading the {tokens:,} tokens "
                "before once more..."
            )
            conversation.reread(num_turns)
        return conversation.visibility.describe()

    def _fork(self, _: str) -> str:
        origin = self._current + 1
        self._go_on_with(self.conversation.fork())
        stream = self.conversation.stream
        megabytes = (stream.nbytes + stream.rewind_nbytes) / 1e6
        return (
            f"branch {len(self.branches)}, {megabytes:,.0f} MB; `/switch {origin}` goes back to "
            f"branch {origin}"
        )

    def _list_branches(self, _: str) -> str:
        lines = []
        for number, branch in enumerate(self.branches, start=1):
            mark = "*" if branch is self.conversation else " "
            last = _shortened(branch.turns[-1].user) if branch.turns else "-"
            lines.append(f"{mark} {number}: {len(branch.turns)} turns, last: {last}")
        return "\n".join(lines)

    def _switch(self, argument: str) -> str:
        number = _whole_number("/switch", argument)
        if not 1 <= number <= len(self.branches):
            raise InputError(f"/switch {number} is out of range; choose 1 to {len(self.branches)}")
        self._current = number - 1
        return f"branch {number}: {self.conversation.visibility.describe()}"

    def _save(self, argument: str) -> str:
        path = Path(argument).expanduser()
        self.conversation.save(path)
        return f"saved in {path}, {path.stat().st_size / 1e6:,.0f} MB"

    def _load(self, argument: str) -> str:
        path = Path(argument).expanduser()
        self._go_on_with(Conversation.load(self.conversation.lm, path))
        return f"branch {len(self.branches)}: {self.conversation.visibility.describe()}"

    def _help(self, _: str) -> str:
        lines = [
            f"{f'{name} {parameter}':<16} {text}"
            for name, (parameter, text, _) in self._commands.items()
        ]
        return "\n".join((*lines, "Ctrl-C ends an answer; what it has said stays."))

    def _quit(self, _: str) -> str:
        self.is_over = True
        return ""

    def _go_on_with(self, conversation: Conversation) -> None:
        self.branches.append(conversation)
        self._current = len(self.branches) - 1


def _whole_number(name: str, argument: str) -> int:
    if not argument.isdecimal():
        raise InputError(f"{name} {argument} has no number; give a whole number after {name}")
    return int(argument)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."
