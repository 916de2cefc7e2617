from __future__ import annotations

import sys

import pytest
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging

from streamingllm.models.quiet import quiet_libraries


@pytest.mark.parametrize("hub_bars", [True, False])
@pytest.mark.parametrize("transformers_bars", [True, False])
def test_every_setting_comes_back(hub_bars: bool, transformers_bars: bool) -> None:
    if transformers_bars:
        logging.enable_progress_bar()
    else:
        logging.disable_progress_bar()
    (enable_progress_bars if hub_bars else disable_progress_bars)()
    verbosity, stderr = logging.get_verbosity(), sys.stderr
    try:
        with pytest.raises(KeyboardInterrupt), quiet_libraries():
            assert not logging.is_progress_bar_enabled()
            assert are_progress_bars_disabled()
            raise KeyboardInterrupt
        assert logging.get_verbosity() == verbosity
        assert logging.is_progress_bar_enabled() is transformers_bars
        assert are_progress_bars_disabled() is not hub_bars
        assert sys.stderr is stderr
    finally:
        logging.enable_progress_bar()
