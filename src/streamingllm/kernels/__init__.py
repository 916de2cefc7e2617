"""Operators that a decode step is made of, each with one plain truth and fast implementations.

Module `operators` defines them in torch's dispatcher. The truth and the fallback is `reference`.
Folder `cpu/` has the C++ for processors, which `native` builds on first use. Folder `triton/` has
the code for GPUs.
"""
