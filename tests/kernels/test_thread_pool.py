"""The threads that share out a step's work, used from where they might break."""

from __future__ import annotations

import os
import threading

import pytest
import torch
from torch import Tensor

from streamingllm.kernels import native, reference
from streamingllm.kernels.operators import linear
from streamingllm.kernels.threads import one_thread

pytestmark = pytest.mark.skipif(not native.load(), reason="no native kernels here")


@pytest.fixture(autouse=True)
def _several_threads() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield None
    torch.set_num_threads(before)


def _product(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 64, generator=generator)
    weight = torch.randn(1008, 64, generator=generator)
    return x, weight, reference.linear(x, weight)


def test_callers_on_several_threads_do_not_disturb_each_other() -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        x, weight, expected = _product(seed)
        torch.set_num_threads(3)  # each thread has its own number
        right = [torch.allclose(linear(x, weight), expected, atol=1e-4) for _ in range(300)]
        if not all(right):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("numbers", [(1, 5, 2), (7, 1, 3)])
def test_the_number_of_threads_may_change(numbers: tuple[int, ...]) -> None:
    x, weight, expected = _product(9)
    for number in numbers:
        torch.set_num_threads(number)
        torch.testing.assert_close(linear(x, weight), expected, atol=1e-4, rtol=1e-4)


def test_torch_is_held_to_one_thread_in_this_one_only() -> None:
    inside, numbers = threading.Event(), []

    def look() -> None:
        numbers.append(torch.get_num_threads())
        inside.wait()
        numbers.append(torch.get_num_threads())

    other = threading.Thread(target=look)
    other.start()
    with one_thread():
        assert torch.get_num_threads() == 1
        newcomer = threading.Thread(target=look)
        newcomer.start()
        inside.set()
        other.join()
        newcomer.join()
    assert torch.get_num_threads() == 3
    assert numbers == [3, 3, 3, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    x, weight, expected = _product(5)
    linear(x, weight)
    child = os.fork()
    if child == 0:
        right = torch.allclose(linear(x, weight), expected, atol=1e-4)
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
