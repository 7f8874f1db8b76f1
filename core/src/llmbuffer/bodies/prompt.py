"""A request body as a snapshot: what the cache models understand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from ..chain import Block, Node, root
from ..frozen import wire_json
from ..messages import content_hash
from ..rules import CacheRules
from ..snapshot import MarkAt, Snapshot
from .formats import Wire, pieces
from .piece import Piece, is_long

__all__ = ["Grow", "read_prompt"]

Grow = Callable[[Node, Block, bytes, int, int], Node]
_EXPLICIT = 4  # breakpoints that a request of OpenAI's may write: openai 3.54.0, types/responses/response_create_params.py
_MESSAGES_ROOT = root(b"messages")


def read_prompt(
    body: Mapping[str, Any],
    wire: Wire,
    rules: CacheRules,
    count: Callable[[str], int],
    *,
    grow: Grow | None = None,
    found: Sequence[Piece] | None = None,
) -> Snapshot:
    """A request body as the cache models see it: a node for each piece, with look-back positions and breakpoints.

    ``grow`` makes a node (parent, block, bytes, tokens, positions): a place to share equal ones. ``found`` are the
    pieces, where they are known already. Raises what ``pieces`` raises.

    >>> body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    >>> read_prompt(body, "openai", CacheRules(name="engine", match="prefix"), len).tokens
    6
    """
    found = pieces(body, wire) if found is None else found
    grow = _grown if grow is None else grow
    model = str(body.get("model", ""))
    head = root(_seed(wire, model, _params(body, rules.frozen_params)))
    tip = _MESSAGES_ROOT
    places: list[MarkAt] = []
    previous = ""
    order = {section: place for place, section in enumerate(rules.section_order)}
    for piece in sorted(found, key=lambda piece: order.get(piece.section, len(order))):
        in_head = piece.section != "messages"
        at = grow(
            head if in_head else tip,
            _block(piece),
            piece.wire,
            piece.tokens(count),
            _steps(piece, previous, rules),
        )
        head, tip = (at, tip) if in_head else (head, at)
        previous = piece.kind
        if piece.mark is not None and _takes_mark(piece, rules):
            places.append(MarkAt(at, in_head=in_head, long=piece.mark == "long"))
    bare = Snapshot(head, tip, _seed("", "", _params(body, rules.message_params)))
    return msgspec.structs.replace(bare, marks=_marks(bare, places, found, body, rules))


def _grown(parent: Node, block: Block, wire: bytes, tokens: int, positions: int) -> Node:
    return parent.child(block, content=wire, wire=wire, tokens=tokens, positions=positions)


def _block(piece: Piece) -> Block:
    # Texts of one place and role may share a part of their tokens; others share none.
    section = piece.section if piece.section != "messages" else f"messages/{piece.role}/{piece.kind}"
    return Block(section, piece.path, piece.text)


def _steps(piece: Piece, previous: str, rules: CacheRules) -> int:
    return 0 if piece.kind in rules.collapsed and piece.kind == previous else 1


def _takes_mark(piece: Piece, rules: CacheRules) -> bool:
    kind = piece.kind.removeprefix("input_")
    return rules.has_marks and not rules.markable.isdisjoint({piece.kind, kind, f"{kind}_url"})


def _seed(wire: str, model: str, params: Mapping[str, Any]) -> bytes:
    return content_hash([wire.encode(), model.encode(), wire_json(params)]).encode()


# On the wire this one holds whatever else has no place of its own, the temperature among it.
_HOLDERS = frozenset({"generationConfig", "generation_config"})


def _params(body: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """The parameters of these names; Gemini keeps most of them in ``generationConfig``, in camel case."""
    config = body.get("generationConfig", body.get("generation_config"))
    pool = {**config, **body} if isinstance(config, Mapping) else body
    out: dict[str, Any] = {}
    for name in sorted(names - _HOLDERS):
        value = next((pool[key] for key in (name, _camel(name)) if pool.get(key) is not None), None)
        if value is not None:
            out[_camel(name)] = value
    return out


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _marks(
    bare: Snapshot, places: list[MarkAt], found: Sequence[Piece], body: Mapping[str, Any], rules: CacheRules
) -> tuple[MarkAt, ...]:
    if rules.match == "entries":
        options = body.get("prompt_cache_options")
        options = options if isinstance(options, Mapping) else {}
        if not rules.implicit:
            return tuple(places)
        if options.get("mode") == "explicit":
            return tuple(places[-_EXPLICIT:])
        latest = places[-rules.slots :] if rules.slots else []
        return (*latest, msgspec.structs.replace(bare.end, long=is_long(options)))
    control = body.get("cache_control")
    if isinstance(control, Mapping) and rules.has_marks:
        places = [*places, *_automatic(bare, found, rules, is_long(control))]
    return tuple(places)


def _automatic(bare: Snapshot, found: Sequence[Piece], rules: CacheRules, long: bool) -> Iterator[MarkAt]:
    """Anthropic's top-level ``cache_control``: a mark on the last block that can carry one."""
    nodes = {"messages": bare.tip, "head": bare.head}
    for piece in reversed(found):
        key = "messages" if piece.section == "messages" else "head"
        if _takes_mark(piece, rules) and (piece.text.strip() or piece.kind != "text"):
            yield MarkAt(nodes[key], in_head=key == "head", long=long)
            return
        nodes[key] = cast(Node, nodes[key].parent)
