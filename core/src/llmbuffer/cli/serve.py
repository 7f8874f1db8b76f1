"""``llmbuffer serve``: a simulated provider on this machine."""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.table import Table

from ..errors import MessageError
from ..simulate import Limits, ProviderServer, read_replies
from .output import complain, console, reporting

__all__ = ["serve"]

_MIB = 2**20
_STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}

_Replies = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="What the model says, one JSON object a line, in the order of the requests: text, tool_calls, output_tokens, "
        "delay, token_delay, truncated; or an error by status, message, retry_after. Then, and without a file, a text "
        "that depends on the prompt alone.",
    ),
]
_Rules = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL:RULES",
        help="Rules for models of a pattern: the name of a dialect (my-model:vllm), or fields to replace "
        "(claude-*:min_tokens=64,ttl=60). May be given several times; the first that fits counts.",
    ),
]
_Latency = Annotated[
    str, typer.Option(metavar="FIRST[,BETWEEN]", help="Seconds before the first token, and between two.")
]
_Overflow = Annotated[
    bool,
    typer.Option(
        "--overflow", help="A routing key takes so many requests a minute; others go to cold machines."
    ),
]
_Log = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append each request as a JSON line, without its text.")
]
_MaxBody = Annotated[int, typer.Option(metavar="MIB", min=1, help="Larger requests are refused.")]
_Remote = Annotated[
    bool, typer.Option("--allow-remote", help="Listen on an address that other machines may reach.")
]


def serve(
    *,
    host: Annotated[str, typer.Option(metavar="ADDRESS")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8790,
    replies: _Replies = None,
    rules: _Rules = None,
    latency: _Latency = "0",
    overflow: _Overflow = False,
    log: _Log = None,
    max_body: _MaxBody = 32,
    allow_remote: _Remote = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The addresses as one JSON line on standard output.")
    ] = False,
) -> None:
    """Serve the wire formats of OpenAI, Anthropic and Gemini, with models of their caches behind them.

    Point an SDK at one of the addresses that are printed; any API key will do, and each has a cache of its own. Usage is
    simulated by each model's cache rules; wrong requests are refused as the provider refuses them. GET /summary and
    GET /metrics tell the sums. Ctrl-C ends it and prints them (with --json on standard error).
    """
    logging.getLogger("uvicorn").addHandler(
        logging.NullHandler()
    )  # streams that are cut off at the end, for one
    with reporting(), ExitStack() as stack:
        _check_host(host, allow_remote)
        sink = stack.enter_context(log.open("a", encoding="utf-8")) if log is not None else None
        server = ProviderServer(
            host=host,
            port=port,
            replies=None if replies is None else read_replies(replies),
            rules=_parsed_rules(rules or []),
            latency=_parsed_latency(latency),
            overflow=overflow,
            limits=Limits(body_bytes=max_body * _MIB),
            on_request=None if sink is None else lambda request: _write(sink, request),
        )
        _start(server, host, port)
        stack.callback(server.stop)
        code = _serve_until_stopped(server, as_json)
        server.stop()
        _print_sums(server, as_json)
        raise typer.Exit(code)


def _check_host(host: str, allowed: bool) -> None:
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not allowed:
        raise MessageError(
            f"--host {host} can be reached by other machines, and the server asks nobody for a key: give --allow-remote if "
            "that is wanted"
        )


def _parsed_rules(given: list[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for rule in given:
        pattern, colon, rest = rule.rpartition(":")
        if not colon or not pattern or not rest:
            raise MessageError(
                f"--rules {rule!r}: give MODEL:DIALECT or MODEL:FIELD=VALUE, such as claude-*:min_tokens=64"
            )
        out[pattern] = dict(map(_field, rest.split(","))) if "=" in rest else rest
    return out


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise MessageError(f"--rules: {text!r} is no FIELD=VALUE")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def _parsed_latency(text: str) -> tuple[float, float]:
    try:
        first, _, between = text.partition(",")
        seconds = (float(first), float(between or 0))
    except ValueError:
        seconds = (-1.0, -1.0)
    if not all(0 <= value < float("inf") for value in seconds):
        raise MessageError(f"--latency {text!r}: give seconds, such as 0.5 or 0.5,0.02")
    return seconds


def _write(sink: Any, request: Any) -> None:
    sink.write(msgspec.json.encode(request).decode() + "\n")
    sink.flush()


def _start(server: ProviderServer, host: str, port: int) -> None:
    try:
        server.start()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise MessageError(
            f"port {port} on {host} is in use: stop what listens there, or give another --port (0 takes a free one)"
        ) from None


def _serve_until_stopped(server: ProviderServer, as_json: bool) -> int:
    """Wait for a signal; the exit code that stands for it. Ctrl-C while the server ends breaks off."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise _SignalError(number)

    before = {number: signal.signal(number, stop) for number in _STOPPED}
    try:
        _print_addresses(server, as_json)
        server.wait()
    except _SignalError as error:
        return _STOPPED[signal.Signals(error.number)]
    finally:
        for number, action in before.items():
            signal.signal(number, action)
    raise MessageError("the server ended by itself: is the machine out of file descriptors?")


class _SignalError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _print_addresses(server: ProviderServer, as_json: bool) -> None:
    addresses = {
        "url": server.url,
        "openai_base_url": server.openai_url,
        "anthropic_base_url": server.anthropic_url,
        "gemini_base_url": server.gemini_url,
    }
    if as_json:
        typer.echo(json.dumps(addresses))
    else:
        typer.echo(f"A simulated provider listens on {server.url}; Ctrl-C ends it.\n")
        typer.echo(f"OpenAI(base_url={server.openai_url!r}, api_key='any')")
        typer.echo(f"Anthropic(base_url={server.anthropic_url!r}, api_key='any')")
        typer.echo(f"genai.Client(http_options={{'base_url': {server.gemini_url!r}}}, api_key='any')")
        typer.echo(f"\nsums: {server.url}/summary and {server.url}/metrics")
    sys.stdout.flush()


def _print_sums(server: ProviderServer, as_json: bool) -> None:
    """The sums at the end; as JSON on standard error, since the one document on standard output has been told."""
    summary = server.summary()
    if as_json:
        typer.echo(json.dumps(summary), err=True)
        return
    complain(f"stopped after {summary['requests']:,} requests")
    if not summary["requests"]:
        return
    titles = ["requests", "errors", "input", "read", "written", "fresh", "output", "hit", "USD"]
    table = Table(box=None, pad_edge=False)
    table.add_column("format")
    table.add_column("model")
    for title in titles:
        table.add_column(title, justify="right")
    for row in [*summary["rows"], {"wire": "all", "model": "", **summary}]:
        counts = (row[key] for key in _COUNTS)
        table.add_row(
            row["wire"],
            row["model"],
            *(f"{count:,}" for count in counts),
            f"{row['hit_ratio']:.4f}",
            _dollars(row),
        )
    console().print(table)


_COUNTS = (
    *("requests", "errors", "input_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("fresh_tokens", "output_tokens"),
)


def _dollars(row: dict[str, Any]) -> str:
    return "-" if row["cost_usd"] is None else f"{row['cost_usd']:.4f}"
