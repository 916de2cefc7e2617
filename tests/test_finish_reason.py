from __future__ import annotations

import json
import subprocess
import sys

from streamingllm.finish_reason import FinishReason


def test_a_finish_reason_is_a_word() -> None:
    words = ["stop", "length", "cancelled", "deadline", "failed"]
    assert [*FinishReason] == words
    assert json.loads(json.dumps([*FinishReason])) == words
    assert f"{FinishReason.STOP}" == "stop"


def test_it_needs_no_torch() -> None:
    code = "import sys, streamingllm.finish_reason; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
