"""Slots of a llama.cpp server: saved to a file, restored into any slot, erased.

A saved slot is the whole computed state of a prompt, so restoring it costs no computation, also after the server was
started anew; and one file restored into every slot shares a prefix between them. The client is an SDK client of your own
(OpenAI's or Anthropic's); requests go to the root of its server. Files are named relative to the directory that the server
was started with (``--slot-save-path``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ..errors import DialectError
from .base import count_field, mapping_field

__all__ = [
    "SlotState",
    "abroadcast_slot",
    "aerase_slot",
    "arestore_slot",
    "asave_slot",
    "broadcast_slot",
    "erase_slot",
    "restore_slot",
    "root_url",
    "save_slot",
]


class SlotState(msgspec.Struct, frozen=True):
    """What was saved, restored or erased: ``tokens`` of slot ``slot``, ``bytes`` of the file, time in ``milliseconds``.

    >>> SlotState(slot=0, tokens=10_832, bytes=2_946_392, milliseconds=3.6).tokens
    10832
    """

    slot: int
    tokens: int
    bytes: int = 0
    milliseconds: float = 0.0


def save_slot(client: Any, slot: int, filename: str) -> SlotState:
    """Write what ``slot`` holds to a file; waits until the slot is idle.

    Raises ``DialectError`` if the server cannot save slots or refuses the name. What the slot holds stays there.
    """
    return _saved(slot, _ask(client, slot, "save", filename))


async def asave_slot(client: Any, slot: int, filename: str) -> SlotState:
    """``save_slot`` with an asynchronous client."""
    return _saved(slot, await _aask(client, slot, "save", filename))


def restore_slot(client: Any, slot: int, filename: str) -> SlotState:
    """Read a file into ``slot``, in place of what it held; waits until the slot is idle.

    The file must come from the same model. Raises ``DialectError`` if there is no such file, or no room for it.
    """
    return _restored(slot, _ask(client, slot, "restore", filename))


async def arestore_slot(client: Any, slot: int, filename: str) -> SlotState:
    """``restore_slot`` with an asynchronous client."""
    return _restored(slot, await _aask(client, slot, "restore", filename))


def erase_slot(client: Any, slot: int) -> SlotState:
    """Empty ``slot``; files stay. Raises ``DialectError`` if the server cannot save slots."""
    return SlotState(slot, count_field(_ask(client, slot, "erase"), "n_erased"))


async def aerase_slot(client: Any, slot: int) -> SlotState:
    """``erase_slot`` with an asynchronous client."""
    return SlotState(slot, count_field(await _aask(client, slot, "erase"), "n_erased"))


def broadcast_slot(client: Any, source: int, targets: Iterable[int], filename: str) -> tuple[SlotState, ...]:
    """Save ``source`` once and restore it into each of ``targets``, so that requests in all of them read its prefix.

    Returns what was saved, then what was restored, in the order of ``targets``; the source among them is left alone. Raises
    ``DialectError`` at the first failure; the targets before it hold the prefix.
    """
    saved = save_slot(client, source, filename)
    return (saved, *(restore_slot(client, slot, filename) for slot in targets if slot != source))


async def abroadcast_slot(
    client: Any, source: int, targets: Iterable[int], filename: str
) -> tuple[SlotState, ...]:
    """``broadcast_slot`` with an asynchronous client."""
    states = [await asave_slot(client, source, filename)]
    for slot in targets:
        if slot != source:
            states.append(await arestore_slot(client, slot, filename))  # noqa: PERF401 - one after the other
    return tuple(states)


def root_url(client: Any) -> str:
    """The root of the server that a client talks to: its base URL without ``/v1``. Raises ``DialectError`` for no client.

    >>> from types import SimpleNamespace
    >>> root_url(SimpleNamespace(base_url="http://127.0.0.1:8080/v1/"))
    'http://127.0.0.1:8080'
    """
    url = str(getattr(client, "base_url", ""))
    if not urlsplit(url).netloc:
        raise DialectError(
            f"a {type(client).__name__} has no base_url: give a client of the openai or anthropic SDK that was made for "
            "the server"
        )
    return url.rstrip("/").removesuffix("/v1")


def _ask(client: Any, slot: int, action: str, filename: str | None = None) -> Mapping[str, Any]:
    try:
        answer = _once(client).post(**_call(client, slot, action, filename))
    except Exception as error:
        raise _explained(error, slot, action, filename) from error
    return _checked(answer, action)


async def _aask(client: Any, slot: int, action: str, filename: str | None = None) -> Mapping[str, Any]:
    try:
        answer = await _once(client).post(**_call(client, slot, action, filename))
    except Exception as error:
        raise _explained(error, slot, action, filename) from error
    return _checked(answer, action)


def _once(client: Any) -> Any:
    """The client without retries: what the server refuses it will refuse again."""
    return client.with_options(max_retries=0)


def _call(client: Any, slot: int, action: str, filename: str | None) -> dict[str, Any]:
    if isinstance(slot, bool) or not isinstance(slot, int) or slot < 0:
        raise DialectError(f"slot is {slot!r}: slots are numbered from 0")
    body = {} if filename is None else {"filename": filename}
    return {"path": f"{root_url(client)}/slots/{slot}?action={action}", "cast_to": object, "body": body}


def _checked(answer: object, action: str) -> Mapping[str, Any]:
    if not isinstance(answer, Mapping) or "id_slot" not in answer:
        raise DialectError(
            f"the answer to {action!r} is no slot's: is this a llama.cpp server? found {answer!r}"
        )
    return answer


def _explained(error: Exception, slot: int, action: str, filename: str | None) -> Exception:
    """A refusal of the server with what to do about it; any other error as it is."""
    status = getattr(error, "status_code", None)
    if status is None:
        return error
    what = f"slot {slot} cannot be {_DONE[action]}" + ("" if filename is None else f" ({filename!r})")
    if status == 501:
        advice = "start the server with a directory for slots (--slot-save-path)"
    elif status == 404:
        advice = "give a client of a llama.cpp server whose base_url ends in /v1"
    elif action == "restore":
        advice = "save a slot of the same model under this name first, and leave room for it in the context"
    else:
        advice = "give the plain name of a file, without a directory"
    return DialectError(f"{what}: the server says {_said(error)!r}; {advice}")


_DONE = {"save": "saved", "restore": "restored", "erase": "erased"}


def _said(error: Exception) -> str:
    body = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    said = inner.get("message") if isinstance(inner, Mapping) else None
    return str(said or error)


def _saved(slot: int, answer: Mapping[str, Any]) -> SlotState:
    return _state(slot, answer, "n_saved", "n_written", "save_ms")


def _restored(slot: int, answer: Mapping[str, Any]) -> SlotState:
    return _state(slot, answer, "n_restored", "n_read", "restore_ms")


def _state(slot: int, answer: Mapping[str, Any], tokens: str, size: str, time: str) -> SlotState:
    milliseconds = mapping_field(answer, "timings").get(time)
    return SlotState(
        slot,
        count_field(answer, tokens),
        count_field(answer, size),
        float(milliseconds) if isinstance(milliseconds, int | float) else 0.0,
    )
