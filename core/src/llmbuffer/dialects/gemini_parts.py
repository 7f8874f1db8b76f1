"""Message parts to and from Gemini's content parts.

What Gemini's wire says and a neutral part cannot hold:

* A signature stands on the part that it signs. On a call it becomes the call's ``extra``; on a text it becomes an
  ``Opaque`` of slot ``part``, directly behind the text: further fields of the part before it.
* Calls may come without an id. Such a call gets ``gemini:RESPONSE:NUMBER:NAME``, made of the id of the response and the
  number of the call in it; it goes back without an id, and its result finds the name of the function in it.
* A result names the function that it is of, besides the id. It is taken from the id, from the ``name`` of the tool
  message, or from the call that it answers (``names``).
* A result is an object: ``{"output": text}``, or ``{"error": text}`` where the tool failed, as Google's SDK asks for.
  Any other object is an ``Opaque`` of slot ``function_response``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DialectError, LossyError
from ..frozen import FrozenDict, FrozenList, check_text, freeze
from ..messages import File, Image, Message, Opaque, Part, Reasoning, Text, ToolCall, ToolResult
from .base import json_object

__all__ = ["from_message", "from_parts", "text_part", "to_message", "to_parts"]

_MADE = "gemini:"  # begins the ids of calls that came without one
_OF_PART, _OF_RESPONSE = "part", "function_response"
_MIME = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "heic": "image/heic",
    "heif": "image/heif",
    "pdf": "application/pdf",
}  # by the end of an address; a table of our own, since the system's differs by machine


def text_part(text: str) -> FrozenDict:
    """A text part."""
    return FrozenDict(text=text)


def to_parts(message: Message, names: Mapping[str, str] | None = None) -> tuple[FrozenDict, ...]:
    """The content parts of one message. Empty texts are left out: the API refuses them.

    ``names`` are those of the functions by call id, for results that do not tell. Raises ``LossyError`` for parts that have no
    place here, such as arguments that are no JSON object.
    """
    if message.name is not None and message.role != "tool":
        raise LossyError(
            f"the {message.role} message names its speaker {message.name!r}, which Gemini has no field for: put the name "
            "into the text"
        )
    names = {} if names is None else names
    if isinstance(message._content, str):
        return (text_part(message._content),) if message._content else ()
    parts: list[FrozenDict] = []
    given = message._content
    for index, part in enumerate(given):
        if isinstance(part, Opaque) and part.slot == _OF_PART:
            if not parts:
                raise LossyError(
                    "an opaque part of slot 'part' continues the part before it, and there is none"
                )
            parts[-1] = FrozenDict({**parts[-1], **_own(part)})
        elif not _says_nothing(part) or _is_continued(given, index):
            parts.append(_wire(part, message, names))
    # A turn of results has to follow the turn of the calls at once, so they come first.
    return tuple(sorted(parts, key=lambda part: "functionResponse" not in part))


def _is_continued(parts: Sequence[Part], index: int) -> bool:
    after = parts[index + 1] if index + 1 < len(parts) else None
    return isinstance(after, Opaque) and after.slot == _OF_PART


def _says_nothing(part: Part) -> bool:
    if isinstance(part, Text):
        return not part.text
    # Fields of OpenAI's replies that say nothing: "refusal": null, "annotations": [].
    return (
        isinstance(part, Opaque) and part.slot.startswith("field:") and part.json in (b"null", b"[]", b"{}")
    )


def _wire(part: Part, message: Message, names: Mapping[str, str]) -> FrozenDict:
    if isinstance(part, Text):
        return text_part(part.text)
    if isinstance(part, Reasoning):
        return FrozenDict(text=part.text, thought=True)
    if isinstance(part, ToolCall):
        return _call(part)
    if isinstance(part, ToolResult):
        return _result(part, _function(part.call_id, message.name, names))
    if isinstance(part, Opaque):
        return _own(part)
    return _media(part)


def _own(part: Opaque) -> FrozenDict:
    if part.dialect not in ("gemini", "any") or part.slot.startswith("field:"):
        raise LossyError(
            f"an opaque {part.dialect!r} part ({part.slot}) has no place in Gemini's format; fork the session from before "
            "it, or drop it on purpose"
        )
    value = part.value
    if not isinstance(value, FrozenDict):
        raise LossyError(
            f"an opaque {part.dialect!r} part is a {type(value).__name__}: content parts are objects"
        )
    return value


def _call(call: ToolCall) -> FrozenDict:
    extra = dict(_own(call.extra)) if call.extra is not None else {}
    inner = extra.pop("functionCall", {})
    if not isinstance(inner, Mapping):
        raise LossyError(
            f"call {call.id!r}: its extra has a {type(inner).__name__} for 'functionCall': give an object"
        )
    named = {} if call.id.startswith(_MADE) else {"id": call.id}
    args = {} if not call.arguments.strip() else {"args": json_object(call, "Gemini")}
    return FrozenDict({"functionCall": FrozenDict({**named, "name": call.name, **args, **inner}), **extra})


def _function(call_id: str, name: str | None, names: Mapping[str, str]) -> str:
    made = call_id.split(":", 3)
    found = made[3] if call_id.startswith(_MADE) and len(made) == 4 else name or names.get(call_id)
    if not found:
        raise LossyError(
            f"the result of call {call_id!r} does not say which function it is of, which Gemini wants to know: render the "
            "call first, or give the tool message the name of the function"
        )
    return found


def _result(part: ToolResult, name: str) -> FrozenDict:
    named: dict[str, Any] = {} if part.call_id.startswith(_MADE) else {"id": part.call_id}
    key = "error" if part.is_error else "output"
    if isinstance(part.content, str):
        rest: Mapping[str, Any] = {"response": FrozenDict({key: part.content})}
    elif _is_own_response(part.content):
        rest = _own(part.content[0])  # type: ignore[arg-type]  # the check above found one opaque part
    else:
        rest = _mixed(part.content, key)
    return FrozenDict(functionResponse=FrozenDict({**named, "name": name, **rest}))


def _is_own_response(content: tuple[Part, ...]) -> bool:
    return len(content) == 1 and isinstance(content[0], Opaque) and content[0].slot == _OF_RESPONSE


def _mixed(content: tuple[Text | Image | File | Opaque, ...], key: str) -> dict[str, Any]:
    """Texts go into the object, all else beside it."""
    texts = [part.text for part in content if isinstance(part, Text)]
    other = [
        _own(part) if isinstance(part, Opaque) else _media(part)
        for part in content
        if not isinstance(part, Text)
    ]
    response = (
        FrozenDict({key: texts[0] if len(texts) == 1 else FrozenList(texts)}) if texts else FrozenDict()
    )
    return {"response": response, **({"parts": FrozenList(other)} if other else {})}


def _media(part: Image | File) -> FrozenDict:
    if isinstance(part, Image):
        if part.detail not in (None, "auto"):
            raise LossyError(f"image detail {part.detail!r} has no place in Gemini's format; leave it out")
        return _source(part.url, None)
    if part.id is not None and part.url is not None:
        raise LossyError(f"file {part.name!r} has both data and an id, and Gemini takes one source")
    if part.id is not None:
        return FrozenDict(fileData=FrozenDict(fileUri=part.id, **_titled(part.name)))
    if part.url is None:
        raise LossyError(f"file {part.name!r} has neither data nor id")
    return _source(part.url, part.name)


def _titled(name: str | None) -> dict[str, str]:
    return {} if name is None else {"displayName": name}


def _source(url: str, name: str | None) -> FrozenDict:
    if not url.startswith("data:"):
        if "://" not in url[:32]:
            raise LossyError(f"{url[:16]!r}… is neither an address nor a data URL: give one of them")
        kind = _MIME.get(url.rpartition(".")[2].lower())
        typed = {} if kind is None else {"mimeType": kind}
        return FrozenDict(fileData=FrozenDict({**typed, "fileUri": url, **_titled(name)}))
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise LossyError(f"data URL {head!r} is not base64")
    kind = head[len("data:") : -len(";base64")]
    return FrozenDict(inlineData=FrozenDict(mimeType=kind, data=data, **_titled(name)))


def from_parts(parts: Sequence[Mapping[str, Any]], response_id: str = "") -> list[Part]:
    """The parts of a reply; those without a neutral part stay as they came."""
    out: list[Part] = []
    nameless = 0  # calls and results that came without an id
    for wire in parts:
        if not isinstance(wire, Mapping):
            raise DialectError(f"content holds a {type(wire).__name__}: expected parts that are objects")
        made = f"{_MADE}{response_id.replace(':', '')}:{nameless}:"
        read = _read(wire, made)
        nameless += any(
            isinstance(part, ToolCall | ToolResult) and _id(part).startswith(_MADE) for part in read
        )
        out += read
    return out


def _id(part: ToolCall | ToolResult) -> str:
    return part.id if isinstance(part, ToolCall) else part.call_id


def _read(wire: Mapping[str, Any], made: str) -> list[Part]:
    """A neutral part where it leads back to the same wire part, with a further one for fields beside a text."""
    rest = {key: value for key, value in wire.items() if key != "text"}
    text = wire.get("text")
    found: list[Part] = []
    if isinstance(text, str) and not rest.keys() & {"thought", *_CONTENT}:
        found = [Text(check_text(text, "text"))]
        if rest:
            found.append(Opaque.of("gemini", rest, _OF_PART))
    elif isinstance(text, str) and rest == {"thought": True}:
        found = [Reasoning(check_text(text, "text"))]
    elif isinstance(wire.get("functionCall"), Mapping):
        found = _from_call(wire, made)
    elif isinstance(wire.get("functionResponse"), Mapping):
        found = _from_result(wire["functionResponse"], made)
    elif isinstance(wire.get("inlineData") or wire.get("fileData"), Mapping):
        found = _from_media(wire)
    return found if found and _leads_back(found, wire) else [Opaque.of("gemini", wire)]


_CONTENT = frozenset(["functionCall", "functionResponse", "inlineData", "fileData"])


def _leads_back(parts: list[Part], wire: Mapping[str, Any]) -> bool:
    part = parts[0]
    name = None
    if isinstance(part, ToolResult):
        name = wire["functionResponse"].get("name")
    try:
        back = to_parts(
            Message("tool" if name else "assistant", parts, name if isinstance(name, str) else None)
        )
    except LossyError:
        return False
    # By their bytes, key order aside: 1, 1.0 and True are equal otherwise.
    if isinstance(part, Text) and not part.text and len(parts) == 1:
        return wire.keys() == {"text"}
    return len(back) == 1 and json.dumps(back[0], sort_keys=True) == json.dumps(
        freeze(wire, "part"), sort_keys=True
    )


def _from_call(wire: Mapping[str, Any], made: str) -> list[Part]:
    call = wire["functionCall"]
    name, call_id = call.get("name"), call.get("id")
    if not isinstance(name, str) or not isinstance(call_id, str | None):
        return []
    arguments = ""
    if isinstance(call.get("args"), Mapping):
        frozen = freeze(call["args"], f"arguments of a call of {name!r}")
        arguments = json.dumps(frozen, ensure_ascii=False, allow_nan=False)
    inner = {key: value for key, value in call.items() if key not in ("id", "name", "args")}
    extra = {key: value for key, value in wire.items() if key != "functionCall"}
    extra |= {"functionCall": inner} if inner else {}
    found = call_id if call_id is not None else made + name
    return [ToolCall(found, name, arguments, Opaque.of("gemini", extra, "tool_call") if extra else None)]


def _from_result(result: Mapping[str, Any], made: str) -> list[Part]:
    name, call_id, response = result.get("name"), result.get("id"), result.get("response")
    if not isinstance(name, str) or not isinstance(call_id, str | None):
        return []
    found = call_id if call_id is not None else made + name
    if result.keys() <= {"id", "name", "response"} and isinstance(response, Mapping) and len(response) == 1:
        ((key, value),) = response.items()
        if key in ("output", "error") and isinstance(value, str):
            return [ToolResult(found, check_text(value, "result"), key == "error")]
    rest = {key: value for key, value in result.items() if key not in ("id", "name")}
    return [ToolResult(found, (Opaque.of("gemini", rest, _OF_RESPONSE),))]


def _from_media(wire: Mapping[str, Any]) -> list[Part]:
    source = wire.get("inlineData") or wire.get("fileData")
    assert isinstance(source, Mapping)
    if not all(isinstance(value, str) for value in source.values()):
        return []
    kind, name = source.get("mimeType", ""), source.get("displayName")
    inline = f"data:{kind};base64,{source.get('data')}"
    url = inline if "inlineData" in wire else source.get("fileUri", "")
    if kind.startswith("image/") and name is None:
        return [Image(url)]
    return [File(url, name=name) if "://" in url[:32] or url.startswith("data:") else File(id=url, name=name)]


def to_message(message: Message) -> dict[str, Any]:
    """A message in Gemini's format, strictly: ``from_message`` gives an equal one back, or ``LossyError`` is raised.

    >>> to_message(Message("assistant", "hi"))
    {'role': 'model', 'parts': [{'text': 'hi'}]}
    """
    wire = {
        "role": "model" if message.role == "assistant" else "user",
        "parts": FrozenList(to_parts(message)),
    }
    if message.role not in ("user", "assistant", "tool") or from_message(wire) != message:
        raise LossyError(
            f"the {message.role} message does not come back equal from Gemini's format (spelling of arguments, empty "
            "texts, the order of a result's parts, names and roles are what it cannot hold)"
        )
    return wire


def from_message(wire: Mapping[str, Any]) -> Message:
    """A message of Gemini's format; a user message of results alone becomes a ``tool`` message.

    >>> from_message({"role": "model", "parts": [{"text": "hi"}]}).role
    'assistant'
    """
    if wire.get("role") not in ("user", "model"):
        raise DialectError(f"unknown role {wire.get('role')!r}: expected 'user' or 'model'")
    parts = from_parts(wire.get("parts") or ())
    if parts and all(isinstance(part, ToolResult) for part in parts):
        return Message("tool", parts, _one_name(wire["parts"], parts))
    return Message("assistant" if wire["role"] == "model" else "user", parts)


def _one_name(wires: Sequence[Mapping[str, Any]], parts: Sequence[Part]) -> str | None:
    """The name of the function, where all results are of one and their ids do not tell."""
    if any(isinstance(part, ToolResult) and part.call_id.startswith(_MADE) for part in parts):
        return None
    names = {wire["functionResponse"]["name"] for wire in wires}
    return names.pop() if len(names) == 1 else None
