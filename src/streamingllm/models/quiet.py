"""Keep libraries that write to the terminal silent while a model loads."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the bars and warnings of transformers and the hub for the body, then restore them."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    transformers_bars = logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        # The reader of GGUF files has a bar that no setting switches off.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        with warnings.catch_warnings():
            # The hub warns when its bars are switched on against the user's environment.
            warnings.simplefilter("ignore")
            if transformers_bars:
                logging.enable_progress_bar()
            (enable_progress_bars if hub_bars else disable_progress_bars)()
