"""Operators that a decode step is made of, each with one plain truth and fast implementations.

`operators` defines them in torch's dispatcher, `reference` is the truth and the fallback, `cpu/`
the C++ for processors, built by `native` on first use, `triton/` the code for GPUs.
"""
