"""A llama.cpp server in a process of its own: run as a script, so that it imports nothing of ours and starts fast.

Takes its options as one JSON argument, prints its address as one JSON line once it listens, and ends
when its parent does. What it has to say otherwise goes to stderr.
"""

import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any


def main() -> None:
    """Serve until stdin closes or the parent is gone."""
    options = json.loads(sys.argv[1])
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tuner, which then stops us
    threading.Thread(target=_leave_with_parent, args=[options["folder"]], daemon=True).start()
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the engine may print; only the address belongs on stdout
    server = _serve(options)
    with answer:
        answer.write(json.dumps({"address": server.listening_address}) + "\n")
    # A process that the parent forked may hold our stdin open after the parent's death.
    while os.getppid() == parent:
        time.sleep(1)
    _leave(options["folder"])


def _serve(options: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options["weights"]
    params.model_alias = {options["name"]}
    params.hostnames = [options["host"]]
    params.port = options["port"]
    params.n_parallel = options["slots"]
    params.n_ctx = options["context"] * options["slots"]
    params.cpuparams.n_threads = options["threads"]
    params.cpuparams_batch.n_threads = options["threads"]
    params.cont_batching = True
    params.cache_prompt = options["prefix_cache"]
    kept = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{options['kv_cache_type'].upper()}")
    params.cache_type_k = params.cache_type_v = kept
    params.use_jinja = True
    params.warmup = True
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.slot_save_path = options["folder"]  # slots can be erased only where they can be saved
    params.cache_ram_mib = 0  # no second prompt cache behind the slots: it would survive an erase
    params.verbosity = 2  # warnings and errors: a line per call would fill the disk
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:  # the log already says why
        sys.exit(str(error))


def _leave_with_parent(folder: str) -> None:
    sys.stdin.read()  # nothing is ever written: this returns when the other end is gone
    _leave(folder)


def _leave(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()
