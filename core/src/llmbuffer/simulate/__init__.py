"""A provider on your own machine: an HTTP server that speaks OpenAI's, Anthropic's and Gemini's formats.

Behind it are the cache models of ``llmbuffer.cache`` with each dialect's rules, so the usage that an SDK sees is what
these rules say; replies are the same each time, or come from a script. Needs the extra ``simulate``.
"""

from __future__ import annotations

from .log import SimulatedRequest
from .replies import Asked, Call, Reply, read_replies
from .scopes import Limits
from .server import ProviderServer

__all__ = ["Asked", "Call", "Limits", "ProviderServer", "Reply", "SimulatedRequest", "read_replies"]
