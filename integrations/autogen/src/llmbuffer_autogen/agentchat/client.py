"""``BufferedChatCompletionClient``: a model client of agentchat that keeps prompts cacheable."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from autogen_core import Component, ComponentModel
from autogen_core.models import ChatCompletionClient, CreateResult
from typing_extensions import Self

from llmbuffer.breaks import CacheBreak
from llmbuffer.errors import MessageError
from llmbuffer.ledger import Ledger
from llmbuffer.observing import Observation
from llmbuffer.reconcile import Policy
from llmbuffer.rules import Dialect
from llmbuffer.seam import Account, Mode, Seam
from llmbuffer.session import Session
from llmbuffer.usage import Usage

from .asking import Asked
from .config import ClientConfig, dumped_policy, loaded_policy
from .convert import ModelHost
from .duplicates import given, taken
from .exchange import Exchange
from .opening import Opening
from .selecting import Known, SelectorPrompt, default_prompt
from .warming import Warming
from .wire import create_args_of, dialect_of, sdk_of

__all__ = ["BufferedChatCompletionClient"]


_UNKNOWN = "unknown"  # the model of a client that does not tell it


class BufferedChatCompletionClient(ChatCompletionClient, Component[ClientConfig]):
    """A model client around another one, which renders and sends as before: ``model_client``.

    Swap it in where an agent or a team takes a model client. It keeps a session for each agent of each team (the runtime
    says which one asks; elsewhere the beginning of the conversation decides) and sends prompts that the provider's cache
    knows: tools stay in the reflection request, a selector's candidates stand behind the history, changing text moves
    to the end, breakpoints and routing keys are set. ``create`` and ``create_stream`` return what the inner client returns.

    ``mode`` is ``observe``, ``buffer`` or ``team`` and ``policy`` says what may be done with prompts, see
    ``llmbuffer.seam.Seam`` and ``llmbuffer.reconcile.Policy``. ``session``: what all agents share; its system text and
    its messages stand before their own. ``model`` and ``dialect``: by default those of the inner client. ``conversation`` and
    ``member`` name a solo agent's session. ``selector_prompt`` is the template of your ``SelectorGroupChat`` if it has
    one of its own. ``stream_usage`` asks OpenAI's API for the usage of streams. ``on_observe`` is called with each
    observation, ``limit`` conversations are kept.

    Raises ``MessageError`` for what is no model client, and for an unknown mode or dialect; errors of the inner client come
    through as they are, and nothing is entered for a request that failed.
    """

    component_type = "model"
    component_config_schema = ClientConfig
    component_provider_override = "llmbuffer_autogen.agentchat.BufferedChatCompletionClient"

    def __init__(
        self,
        model_client: ChatCompletionClient,
        *,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        session: Session | None = None,
        model: str | None = None,
        dialect: str | Dialect | None = None,
        conversation: str | None = None,
        member: str | None = None,
        selector_prompt: str | None = None,
        stream_usage: bool = True,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        if not isinstance(model_client, ChatCompletionClient):
            raise MessageError(
                f"a {type(model_client).__name__} is no model client: give a ChatCompletionClient"
            )
        self.selector = None if mode == "observe" else SelectorPrompt(selector_prompt or default_prompt())
        self.model_client = model_client
        self.host = ModelHost()
        args = create_args_of(model_client)
        self._model, self._dialect = model, dialect
        self.seam = Seam(
            self.host,
            session=session,
            model=model or str(args.get("model") or _UNKNOWN),
            dialect=dialect_of(sdk_of(model_client)) if dialect is None else dialect,
            mode=mode,
            policy=policy,
            limit=limit,
            on_observe=on_observe,
        )
        self._policy = Policy() if policy is None else policy
        self.conversation, self.member = conversation, member
        self.stream_usage = stream_usage
        self._selector_prompt = selector_prompt
        self.known = Known(limit)
        self.opening = Opening(self.seam.session, self.host)
        self.warming: Warming | None = None

    # The requests

    async def create(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: Any = None,
    ) -> CreateResult:
        """One reply; see ``ChatCompletionClient.create``."""
        exchange = Exchange(self, Asked(messages, tools, tool_choice, json_output, extra_create_args))
        while True:
            async with exchange.request(cancellation_token) as request:
                with exchange.sending():
                    result = await self.model_client.create(**request)
            if exchange.ends(result):
                return exchange.result

    async def create_stream(
        self,
        messages: Sequence[Any],
        *,
        tools: Sequence[Any] = (),
        tool_choice: Any = "auto",
        json_output: Any = None,
        extra_create_args: Mapping[str, Any] = {},
        cancellation_token: Any = None,
        **further: Any,
    ) -> AsyncGenerator[str | CreateResult, None]:
        """The pieces of a reply and then the whole of it; see ``ChatCompletionClient.create_stream``.

        ``further`` arguments go to the inner client.
        """
        exchange = Exchange(self, Asked(messages, tools, tool_choice, json_output, extra_create_args))
        ended = False
        while not ended:
            result: CreateResult | None = None
            async with exchange.request(cancellation_token) as request:
                stream = self.model_client.create_stream(**request, **further)
                async with aclosing(stream):
                    while (piece := await exchange.next(stream)) is not None:
                        if isinstance(piece, CreateResult):
                            result = piece
                        else:
                            yield piece
            ended = result is None or exchange.ends(result)
            if ended and result is not None:
                yield exchange.result

    # What was used

    @property
    def session(self) -> Session:
        """What all sessions of this client fork from."""
        return self.seam.session

    @property
    def usage(self) -> Usage:
        """All that was reported, cached reads and writes included."""
        return self.seam.usage

    @property
    def breaks(self) -> tuple[CacheBreak, ...]:
        """All alarms."""
        return self.seam.breaks

    @property
    def ledger(self) -> Ledger:
        """Every request of the conversations that are kept, by time."""
        return self.seam.ledger

    @property
    def members(self) -> dict[str | None, Account]:
        """What each agent used, by its name; ``None`` are agents without one, solo ones say."""
        names = dict.fromkeys(member for _, member in self.seam.accounts)
        return {name: self._account_of(name) for name in names}

    def _account_of(self, member: str | None) -> Account:
        return sum(
            (account for (_, who), account in self.seam.accounts.items() if who == member), start=Account()
        )

    def account(self, *, conversation: str | None = None, member: str | None = None) -> Account:
        """What was used in all, in a conversation (a team's id), by an agent, or by an agent in a conversation."""
        return self.seam.account(conversation=conversation, member=member)

    def declare(self, member: str, *, system: str = "", tools: Sequence[Any] = ()) -> None:
        """Say beforehand that an agent of this name will speak in a team, with its system message and its tools.

        In team mode the first request then has the prefix that all agents will share; without, it is found when the second
        agent speaks. Raises ``MessageError`` for an empty name and for what is no tool.

        >>> from autogen_ext.models.replay import ReplayChatCompletionClient
        >>> client = BufferedChatCompletionClient(ReplayChatCompletionClient(["Hello!"]), mode="team")
        >>> client.declare("writer", system="You write. Be brief.")
        """
        self.seam.declare(member, system=[*self.opening.texts, system], tools=list(tools))

    # Other clients like this one

    def named(self, *, conversation: str | None = None, member: str | None = None) -> Self:
        """The same client with names of its own, for an agent outside of a team; accounts and sessions are shared.

        An agent that is a tool of another one runs in that one's place, so give it a name.
        """
        return self._like(
            conversation=self.conversation if conversation is None else conversation,
            member=self.member if member is None else member,
        )

    def fork(self, session: Session | None = None) -> Self:
        """A client with the same settings and inner client, sessions off ``session`` (default: a fork of this one's).

        Its accounts begin anew.
        """
        return self.forked(None, session)

    def forked(self, warming: Warming | None, session: Session | None = None) -> Self:
        """A fork whose first request may have to wait; what ``fork_team`` makes."""
        seam = self.seam.fork(session)
        return self._like(
            seam=seam,
            opening=Opening(seam.session, self.host),
            known=Known(self.known.limit),
            warming=warming,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with an inner client of its own; accounts and sessions are shared."""
        out = memo[id(self)] = self._like(model_client=copy.deepcopy(self.model_client, memo))
        return out

    def _like(self, **changes: Any) -> Self:
        out = copy.copy(self)
        out.__dict__.update(changes)
        return out

    # The inner client's own

    async def close(self) -> None:
        """Close the inner client."""
        await self.model_client.close()

    def actual_usage(self) -> Any:
        """The inner client's count, without cached tokens; see ``usage``."""
        return self.model_client.actual_usage()

    def total_usage(self) -> Any:
        """The inner client's count, without cached tokens; see ``usage``."""
        return self.model_client.total_usage()

    def count_tokens(self, messages: Sequence[Any], *, tools: Sequence[Any] = ()) -> int:
        """The inner client's count of a prompt."""
        return self.model_client.count_tokens(messages, tools=tools)

    def remaining_tokens(self, messages: Sequence[Any], *, tools: Sequence[Any] = ()) -> int:
        """The inner client's count of what is left of its context window."""
        return self.model_client.remaining_tokens(messages, tools=tools)

    @property
    def capabilities(self) -> Any:
        """The inner client's."""
        return self.model_client.capabilities

    @property
    def model_info(self) -> Any:
        """The inner client's."""
        return self.model_client.model_info

    # As a component

    def _to_config(self) -> ClientConfig:
        name = given(self)
        if name is not None:
            return ClientConfig(fork=name, model_client=ComponentModel(provider="", config={}))
        if self._dialect is not None and not isinstance(self._dialect, str):
            raise MessageError(f"the dialect {self._dialect!r} cannot be dumped: give it by its name")
        return ClientConfig(
            model_client=self.model_client.dump_component(),
            mode=self.seam.mode,
            policy=dumped_policy(self._policy),
            model=self._model,
            dialect=self._dialect,
            conversation=self.conversation,
            member=self.member,
            selector_prompt=self._selector_prompt,
            stream_usage=self.stream_usage,
        )

    @classmethod
    def _from_config(cls, config: ClientConfig) -> Self:
        live = taken(config)
        if live is not None:
            return live
        fields = config.model_dump(exclude={"model_client", "policy", "fork"})
        inner = ChatCompletionClient.load_component(config.model_client)
        return cls(inner, policy=loaded_policy(config.policy), **fields)

    def __repr__(self) -> str:
        return f"BufferedChatCompletionClient({type(self.model_client).__name__}, {self.seam!r})"
