"""Buffered models some of whose fields a config sets."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables.configurable import RunnableConfigurableFields

__all__ = ["BufferedFields"]


class BufferedFields(
    RunnableConfigurableFields
):  # without parameters: with them pydantic rebuilds what it holds
    """LangChain's own, but what it rebuilds from the model's class goes on in the conversations of the model.

    It is stored as LangChain's own, and comes back with the plain model.
    """

    @classmethod
    def lc_id(cls) -> list[str]:
        """The name of LangChain's own class."""
        return RunnableConfigurableFields.lc_id()

    def _prepare(self, config: Any = None) -> Any:
        made, told = super()._prepare(config)
        if made is not self.default:
            made._llmbuffer = self.default._llmbuffer
        return made, told
