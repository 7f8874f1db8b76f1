"""A process that writes into a sealed store while its keys are rotated: see `core/test_store_sealed.py`."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from llmbuffer import Message, Session, StableContext
from llmbuffer.store import Keyring, open_store
from llmbuffer.tokens import EstimateCounter


def write(url: str, writer: str, stop: Path, ring: Keyring) -> None:
    """Append to a session, fork it and put a value at each turn, until a file is there; prints every turn that was acknowledged."""
    seconds = count()  # a clock on which a few calls are the five seconds after which keys are looked up anew
    with open_store(url, key=ring, tenant="acme", clock=lambda: float(next(seconds))) as store:
        context = StableContext("a-model", f"You are {writer}.")
        session = Session(context, tokens=EstimateCounter(), store=store, session_id=writer)
        for turn in count():
            if stop.exists():
                return
            session.append(Message("user", f"{writer}-{turn}"))
            session.save()
            fork = session.fork()
            fork.append(Message("assistant", f"fork {writer}-{turn}"))
            fork.save()
            store.put(f"{writer}-{turn}", b"%d" % turn)
            print(fork.id, flush=True)
            assert store.messages(writer)[-1].text == f"{writer}-{turn}"


if __name__ == "__main__":
    url, writer, stop, old, new = sys.argv[1:]
    write(url, writer, Path(stop), Keyring({"old": old, "new": new}, current="old"))
