"""Start a vLLM server with a tiny random model and run the tests for it: what `nox -s engine-vllm` does.

The model is a configuration and a tokenizer of bytes; the server makes up the weights (--load-format dummy).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from llmbuffer.engine.tiny import CHAT_TEMPLATE, SPECIAL, letters

BLOCK = 128  # tokens; the CPU build takes multiples of 32
WAIT = 300.0  # seconds until the server must answer
CONTEXT = 16_384


def write_model(folder: Path) -> None:
    """config.json and the tokenizer's two files."""
    marks = dict(zip(SPECIAL, range(256, 256 + len(SPECIAL)), strict=True))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": CONTEXT,
        "vocab_size": 256 + len(SPECIAL),
        "bos_token_id": marks["<|start|>"],
        "eos_token_id": marks["<|end|>"],
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {letter: value for value, letter in letters().items()}
    added = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token, number in marks.items()
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary | marks, "merges": [], "fuse_unk": False},
    }
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": CHAT_TEMPLATE,
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
    }
    files = {"config.json": config, "tokenizer.json": tokenizer, "tokenizer_config.json": settings}
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether somebody says yes there."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers; raise ``SystemExit`` if it ended or takes too long."""
    limit = time.monotonic() + WAIT
    while time.monotonic() < limit and process.poll() is None:
        if answers(f"{url}/health"):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
    raise SystemExit("the vLLM server does not answer: its log is above")


def main() -> int:
    """Start the server, run the tests, end the server."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        port = free_port()
        options = {
            "--served-model-name": "m",
            "--load-format": "dummy",
            "--host": "127.0.0.1",
            "--port": str(port),
            "--max-model-len": str(CONTEXT),
            "--block-size": str(BLOCK),
            "--dtype": "bfloat16",
        }
        flat = [word for option in options.items() for word in option]
        environ = {
            **os.environ,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [str(Path(sys.executable).with_name("vllm")), "serve", folder, *flat]
        server = subprocess.Popen(
            [*command, "--enable-prompt-tokens-details", "--enforce-eager"], env=environ
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, server)
            tests = [sys.executable, "-m", "pytest", "tests/engine/checks_vllm.py", *sys.argv[1:]]
            here = {**os.environ, "LLMBUFFER_VLLM_URL": url, "LLMBUFFER_VLLM_BLOCK": str(BLOCK)}
            return subprocess.run(tests, env=here, check=False).returncode
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


if __name__ == "__main__":
    sys.exit(main())
