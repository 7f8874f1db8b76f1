"""A tiny model with random weights: what it says is noise, what the engine caches for it is real."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import EngineError

__all__ = ["CHAT_TEMPLATE", "SPECIAL", "letters", "write_tiny_model"]

# Tools come before the messages; calls and results are part of their messages, so all of them cost tokens.
CHAT_TEMPLATE = """\
{%- if tools %}<|start|>tools
{{ tools | tojson }}<|end|>
{% endif -%}
{%- for message in messages %}<|start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif -%}
{%- if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}<|end|>
{% endfor -%}
{%- if add_generation_prompt %}<|start|>assistant
{% endif -%}
"""
# Behind the 256 bytes: what begins and ends a message, and two that stand in no prompt.
SPECIAL = ("<|start|>", "<|end|>", "<|text|>", "<|pad|>")


def write_tiny_model(
    path: str | Path,
    *,
    layers: int = 1,
    width: int = 64,
    heads: int | None = None,
    merges: Sequence[tuple[str, str]] = (),
    context: int = 131_072,
    seed: int = 0,
) -> Path:
    """Write a GGUF file of a Llama with random weights and return its path; the same arguments give the same bytes.

    A token is a byte of UTF-8, so a text of 10,000 ASCII characters is 10,000 tokens. With ``merges``, pairs of tokens written
    with ``letters``, each merge adds a token. ``layers`` and ``width`` (a multiple of 64) set the size, 0.3 MB by default;
    ``heads`` (default: one for each 32 of the width) has to divide the width; ``context`` is the longest prompt in tokens.
    Raises ``EngineError`` if the package ``gguf`` is not installed, ``OSError`` if the file cannot be written.
    """
    try:
        import gguf
    except ImportError as error:
        raise EngineError("writing a tiny model needs gguf: pip install 'llmbuffer[llamacpp]>=1'") from error
    target = Path(path)
    writer = gguf.GGUFWriter(target, "llama")
    heads = heads or width // 32
    writer.add_name("tiny-random")
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    # Two pairs may join to the same text; the loader wants each token once.
    merged = list(dict.fromkeys(first + second for first, second in merges))
    _add_vocabulary(writer, gguf.TokenType, merges, merged)
    _add_weights(writer, layers, width, seed, 256 + len(SPECIAL) + len(merged))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def _add_vocabulary(writer: Any, kinds: Any, merges: Sequence[tuple[str, str]], merged: list[str]) -> None:
    known = letters()
    tokens = [*(known[value] for value in range(256)), *SPECIAL, *merged]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    normal, special = [kinds.NORMAL], [kinds.CONTROL]
    writer.add_token_types(normal * 256 + special * len(SPECIAL) + normal * len(merged))
    # The loader wants at least one merge: one of two bytes that no text in UTF-8 holds.
    unused = (known[0xFE], known[0xFF])
    writer.add_token_merges([f"{first} {second}" for first, second in merges or [unused]])
    start, end, _, pad = range(256, 256 + len(SPECIAL))
    writer.add_bos_token_id(start)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def letters() -> dict[int, str]:
    """The printable character that stands for each byte in the vocabularies of byte-level tokenizers.

    >>> letters()[ord("a")], letters()[ord(" ")]
    ('a', 'Ġ')
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [value for value in range(256) if value not in visible]
    return {value: chr(value) for value in visible} | {
        value: chr(256 + place) for place, value in enumerate(hidden)
    }


def _add_weights(writer: Any, layers: int, width: int, seed: int, vocabulary: int) -> None:
    import numpy as np

    random = np.random.default_rng(seed)

    def add(name: str, *shape: int, of: Any = None) -> None:
        weights = 0.05 * random.standard_normal(shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", (weights if of is None else of).astype(np.float32))

    add("token_embd", vocabulary, width)
    for layer in range(layers):
        block = f"blk.{layer}"
        add(f"{block}.attn_norm", width)
        add(f"{block}.ffn_norm", width)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{name}", width, width)
        add(f"{block}.ffn_gate", 2 * width, width)
        add(f"{block}.ffn_up", 2 * width, width)
        add(f"{block}.ffn_down", width, 2 * width)
    add("output_norm", width)
    # It writes printable ASCII only, and never ends by itself: half a character would be held back by the server.
    spoken = random.standard_normal((vocabulary, width))
    spoken[:0x20] = spoken[0x7F:] = 0
    add("output", of=spoken)
