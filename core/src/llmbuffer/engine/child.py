"""The process of an ``EngineServer``: the first line of its output is the server's address, and it ends with its input."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

__all__ = ["serve"]


def serve(options: dict[str, Any]) -> None:
    """Run the server that ``options`` describe (see ``EngineServer``) until the standard input ends; never returns."""
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the native code prints goes to the log
    # Threads that spin while they wait make two of them many times slower than one on a machine that has other work; the
    # library reads these when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    try:
        import xllamacpp
    except ImportError:
        sys.exit("the server needs xllamacpp: pip install 'llmbuffer[llamacpp]>=1'")
    server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), options))
    answer.write(f"{server.listening_address}\n")
    answer.flush()
    try:
        sys.stdin.read()
    finally:
        os._exit(0)  # the native threads know no other way


def _parameters(params: Any, options: dict[str, Any]) -> Any:
    params.model.path = options["model"]
    params.n_parallel = options["slots"]
    params.n_ctx = options["context"] * options["slots"]
    params.kv_unified = False  # each slot has its own share of the context
    params.port = 0
    params.ui = False
    params.endpoint_slots = params.endpoint_metrics = params.endpoint_props = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options["threads"]
    if options["slot_dir"] is not None:
        os.makedirs(options["slot_dir"], exist_ok=True)  # noqa: PTH103 - only a string is needed of it
        params.slot_save_path = os.path.join(options["slot_dir"], "")  # noqa: PTH118 - it has to end in a separator
    if options["memory"] is not None:
        params.cache_ram_mib = options["memory"]
    return params


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
