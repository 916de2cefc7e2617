"""Start servers without importing again: each is a fork of this process, which has imported all.

Run: `python -m tests.server.launcher`. Each line of standard input is a JSON list of arguments of
the command line; the answer is the process id of the server that was started with them.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import streamingllm.models.load
import streamingllm.server.app
import streamingllm.server.assembly
import streamingllm.server.running
import streamingllm.server.settings_loading  # noqa: F401
from streamingllm.cli.app import main


def launch() -> None:
    """Fork a server for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            log = os.open(os.devnull, os.O_RDWR)
            os.dup2(log, 0)
            os.dup2(log, 1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            main(json.loads(line))
            os._exit(0)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    launch()
