"""What all commands share: tables and JSON on standard output, everything else on standard error, exit codes."""

from __future__ import annotations

import json
import os
import sys
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from ..errors import LLMBufferError

__all__ = ["FILE_WIDTH", "complain", "console", "interrupted", "print_json", "reporting"]

FILE_WIDTH = 160  # columns of a table that goes to a file or a pipe


@contextmanager
def reporting() -> Iterator[None]:
    """Run a command: errors become one line on standard error and an exit code, never a traceback."""
    try:
        yield
        sys.stdout.flush()
    except LLMBufferError as error:
        complain(f"error: {error}")
        raise typer.Exit(2) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the last flush at exit goes there
        raise typer.Exit(141) from None
    except OSError as error:
        complain(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")
        raise typer.Exit(2) from None
    except BaseException as error:
        if not interrupted(error):
            raise
        complain("stopped")
        raise typer.Exit(130) from None


def interrupted(error: BaseException) -> bool:
    """Whether it is Ctrl-C, which comes out of an event loop as a cancellation on Python 3.10."""
    return isinstance(error, KeyboardInterrupt | CancelledError)


def complain(text: str) -> None:
    """A line on standard error."""
    typer.echo(f"llmbuffer: {text}", err=True)


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def console() -> Console:
    """Where tables go: as wide as the terminal, or ``FILE_WIDTH`` columns where the output is none."""
    return _Console(width=None if sys.stdout.isatty() else FILE_WIDTH, highlight=False)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program here, with an exit code of its own."""
        raise BrokenPipeError
