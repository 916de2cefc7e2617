"""The attention operators in Triton, for GPUs; `streamingllm.kernels.gpu` puts them in charge.

Importing this package needs triton. Each operator is a wrapper that checks its arguments once and a
module of kernels; `tiles` is what the kernels share.
"""

from streamingllm.kernels.triton.decode import decode_attention
from streamingllm.kernels.triton.windowed import windowed_attention

__all__ = ["decode_attention", "windowed_attention"]
