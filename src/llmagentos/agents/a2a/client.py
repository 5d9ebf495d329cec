"""One call to a remote A2A agent: a message sent, its task awaited, what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import A2AError
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from llmagentos.agents.strangers import plain_text
from llmagentos.core import trust
from llmagentos.core.config.outside import A2aAgent
from llmagentos.core.errors import ConfigError, ServiceError, Unavailable

T = TypeVar("T")

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one HTTP answer."""
FIRST_S, MOST_S = 0.3, 5.0
"""Waits between two looks at a task."""
AWAY_S = 60.0
"""For so long an agent that has a task of ours may be away."""
_OPEN = (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
_ASKS = (TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED)


class RemoteTaskFailed(ServiceError):
    """The remote agent's task failed, was cancelled, or wants more than an agent can give."""

    code = "a2a_task_failed"


class Remote:
    """The agent at `spec.url`, called `name` here."""

    def __init__(self, name: str, spec: A2aAgent) -> None:
        self._name = name
        self._spec = spec

    async def card(self) -> Mapping[str, Any]:
        """What it says of itself. Raises `Unavailable` or `ConfigError`."""
        async with self._http() as http:
            found: dict[str, Any] = MessageToDict(await self._card(http))
            return found

    async def ask(self, text: str, message_id: str, timeout: float, begun: Callable[[str], Awaitable[object]]) -> Any:
        """The answer of its task for `text`; `begun` is told of the task before it is awaited.

        `message_id` is the same for the same call: a server that knows it does not begin again. Raises
        `RemoteTaskFailed`, `Unavailable`, or `TimeoutError` (then the task is told to stop).
        """
        message = Message(message_id=message_id, role=Role.ROLE_USER, parts=[Part(text=text)])
        request = SendMessageRequest(message=message, configuration=SendMessageConfiguration(return_immediately=True))
        async with self._client() as client:
            with _errors(self._name):
                sent = [event async for event in client.send_message(request)]
            last = sent[-1] if sent else None
            if last is None or not (last.HasField("task") or last.HasField("message")):
                raise RemoteTaskFailed(f"the A2A agent {self._name!r} answered nothing")
            if last.HasField("message"):
                return _content(last.message.parts)
            await begun(last.task.id)
            return await self._awaited(client, last.task, timeout)

    async def await_task(self, task_id: str, timeout: float) -> Any:
        """The answer of a task that was begun before. Raises as `ask`."""
        async with self._client(patience_s=AWAY_S) as client:
            return await self._awaited(client, await self._found(client, task_id), timeout)

    async def _awaited(self, client: Client, task: Task, timeout: float) -> Any:
        wait = FIRST_S
        try:
            async with asyncio.timeout(timeout):
                while task.status.state in _OPEN:
                    await asyncio.sleep(wait)
                    wait = min(MOST_S, 1.5 * wait)
                    task = await self._found(client, task.id)
        except TimeoutError:
            with suppress(A2AError, A2AClientError, httpx.HTTPError):
                await client.cancel_task(CancelTaskRequest(id=task.id))
            raise
        return self._outcome(task)

    async def _found(self, client: Client, task_id: str) -> Task:
        """The task. Who is away is asked again for a while: that changes nothing over there."""
        ask = lambda: client.get_task(GetTaskRequest(id=task_id))  # noqa: E731
        with _errors(self._name):  # of the way there; what the agent itself says is final
            return await _again(ask, AWAY_S, A2AClientError, httpx.TransportError)

    def _outcome(self, task: Task) -> Any:
        state = task.status.state
        if state == TaskState.TASK_STATE_COMPLETED:
            parts = [part for artifact in task.artifacts for part in artifact.parts]
            return _content(parts or task.status.message.parts)
        told = _content(task.status.message.parts) if task.status.HasField("message") else ""
        if state in _ASKS:
            raise RemoteTaskFailed(f"{self._name} asks for more, which agents cannot give: {told}")
        name = TaskState.Name(state).removeprefix("TASK_STATE_").lower()
        raise RemoteTaskFailed(f"{self._name}: the task {task.id} was {name}" + (f": {told}" if told else ""))

    @asynccontextmanager
    async def _client(self, *, patience_s: float = 0.0) -> AsyncIterator[Client]:
        async with self._http() as http:
            card = await _again(lambda: self._card(http), patience_s, Unavailable)
            config = ClientConfig(
                streaming=False, httpx_client=http, supported_protocol_bindings=["JSONRPC", "HTTP+JSON"]
            )
            with _errors(self._name):
                client = ClientFactory(config).create(card)
            yield client

    async def _card(self, http: httpx.AsyncClient) -> AgentCard:
        base, _, file = self._spec.url.rpartition("/")
        named = file.endswith(".json")  # the card's own address, or where it is below
        at = {"base_url": base, "agent_card_path": f"/{file}"} if named else {"base_url": self._spec.url}
        with _errors(self._name):
            card = await A2ACardResolver(http, **at).get_agent_card()
        own = _origin(self._spec.url)
        offered = list(card.supported_interfaces)
        here = [one for one in offered if _origin(one.url) == own]
        if offered and not here:  # a stranger does not choose where this server, and its token, go
            told = plain_text(offered[0].url, 200)
            raise ConfigError(
                f"the card of the A2A agent {self._name!r} leads to another origin: {told}",
                hint="give the address of a card of that origin, if it is to be trusted",
            )
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(here)
        return card

    @asynccontextmanager
    async def _http(self) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {self._spec.token.read()}"} if self._spec.token is not None else {}
        async with AsyncExitStack() as stack:
            client = httpx.AsyncClient(
                headers=headers,
                timeout=self._spec.timeout_s,
                transport=_Bounded(verify=trust.context()),
                trust_env=False,
            )
            yield await stack.enter_async_context(client)


class _Bounded(httpx.AsyncHTTPTransport):
    """As its base, but an answer longer than `MAX_ANSWER` ends in a `ReadError`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counted(response.stream)
        return response


class _Counted(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_ANSWER:
                raise httpx.ReadError(f"the answer is longer than {MAX_ANSWER} bytes")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


@contextmanager
def _errors(name: str) -> Iterator[None]:
    """Errors of the package as ours."""
    try:
        yield
    except (httpx.HTTPError, A2AClientError, A2AError, DecodeError, ValueError) as error:
        told = plain_text(str(error), 500) or type(error).__name__
        raise Unavailable(f"the A2A agent {name!r} cannot be asked: {told}") from None


async def _again(ask: Callable[[], Awaitable[T]], patience_s: float, *away: type[Exception]) -> T:
    """What `ask` gives, asked again for so long while it raises what says that the agent is `away`."""
    end = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await ask()
        except away:
            if asyncio.get_running_loop().time() >= end:
                raise
        await asyncio.sleep(FIRST_S)


def _content(parts: Any) -> Any:
    """Text as text, data as data; of files only what they are."""
    found: list[Any] = []
    for part in parts:
        match part.WhichOneof("content"):
            case "text":
                found.append(part.text)
            case "data":
                found.append(MessageToDict(part.data))
            case "url":
                found.append({"url": part.url, "type": part.media_type})
            case "raw":
                found.append({"type": part.media_type, "bytes": len(part.raw)})
    if all(isinstance(item, str) for item in found):
        return "\n".join(found)
    return found[0] if len(found) == 1 else found


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port
