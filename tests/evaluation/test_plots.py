from __future__ import annotations

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
from matplotlib.image import imread

from streamingllm.evaluation.plots import Curve, plot_strategies


def curve(label: str, level: float) -> Curve:
    return Curve(label, np.full(2999, level, np.float32), [(1500, 1000), (3000, 2000)])


def test_a_plot_is_an_image_with_something_on_it() -> None:
    png = plot_strategies([curve("flat", 1), curve("broken", 8)], {"cache full": 1024}, "a, b")
    pixels = imread(io.BytesIO(png), format="png")
    assert pixels.shape[0] > 500
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_perplexities_beyond_numbers_are_left_out() -> None:
    assert plot_strategies([curve("flat", 1), curve("broken", 1000)], {}, "one line is infinite")


def test_the_global_state_of_matplotlib_is_left_alone() -> None:
    before = dict(mpl.rcParams)
    plot_strategies([curve("flat", 1)], {}, "title")
    assert dict(mpl.rcParams) == before


def test_no_display_is_asked_for() -> None:
    script = (
        "import streamingllm.evaluation.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
