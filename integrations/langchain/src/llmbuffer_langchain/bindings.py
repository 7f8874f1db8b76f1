"""Chat models inside of what LangChain makes of them: bound arguments, and models that a config chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable

from .model import is_buffered

__all__ = ["reached"]


def reached(model: Any, made: Callable[[BaseChatModel, Any], Any], owner: Any = None) -> Any:
    """The same with ``made(model, owner)`` in place of the chat model in it; itself, where that is buffered already.

    ``owner`` is what the chat model was made by for this call alone, else the model itself. ``None`` where no chat model
    is found.
    """
    if is_buffered(model):
        return model
    if isinstance(model, BaseChatModel):
        return made(model, model if owner is None else owner)
    if isinstance(model, RunnableBindingBase):
        inner = reached(model.bound, made, owner)
        if inner is None or inner is model.bound:
            return None if inner is None else model
        return model.model_copy(update={"bound": inner})
    if isinstance(model, DynamicRunnable):
        return reached(model.prepare(model.config)[0], made, model)
    if (
        type(model).__name__ == "_ConfigurableModel"
    ):  # what ``init_chat_model`` gives; it has no public way to its model
        return reached(model._model(), made, model)
    return None
