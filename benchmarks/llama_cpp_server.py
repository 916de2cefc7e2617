"""Serve a GGUF file with llama.cpp's server; run by the interpreter that has xllamacpp.

Run: `python llama_cpp_server.py MODEL.gguf PORT SLOTS CONTEXT THREADS`
"""

from __future__ import annotations

import sys
import time

import xllamacpp

_FOREVER_SECONDS = 3600


def main(model: str, port: int, num_slots: int, context: int, threads: int) -> None:
    """Serve until killed; print one line when ready."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.port, params.hostnames = port, ["127.0.0.1"]
    params.n_parallel, params.n_ctx = num_slots, num_slots * context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.ctx_shift, params.cont_batching, params.cache_prompt = True, True, True
    params.n_threads_http = num_slots + 4
    params.kv_unified = False
    server = xllamacpp.Server(params)
    print(f"ready {server.listening_address}", flush=True)
    time.sleep(_FOREVER_SECONDS)


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    main(name, *map(int, numbers))
