"""One connection to an MCP server, over stdio or streamable HTTP, of the protocol's version that both speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import mcp_types as types
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from llmagentos.agents.mcp.bounded import BoundedTransport
from llmagentos.agents.mcp.listing import MOST_TOOLS
from llmagentos.agents.mcp.results import McpToolFailed, plain
from llmagentos.agents.mcp.stdio import Child
from llmagentos.agents.strangers import plain_text
from llmagentos.core import log, trust
from llmagentos.core.config.outside import McpServer
from llmagentos.core.errors import DeadlineExceeded, InvalidInput, LLMAgentOSError, ServiceError, Unavailable

_PAGES = 20
_POOL_S = 10.0
_RESULT: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)
_INFO = types.Implementation(name="llmagentos", version="1")

_log = log.get(__name__)


class Session:
    """Calls to one connected server. `ended` is set when the connection is gone, `changed` when its tools changed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Client | None = None
        self.child: Child | None = None
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()

    @property
    def client(self) -> Client:
        """The connected client."""
        assert self._client is not None
        return self._client

    @property
    def agreed(self) -> tuple[str, str | None]:
        """The protocol's version, and how the server calls itself."""
        info = self.client.server_info
        named = plain_text(f"{info.name} {info.version}".strip(), 200) if info is not None else None
        return self.client.protocol_version, named

    @asynccontextmanager
    async def opened(self, spec: McpServer, env: Mapping[str, str], workdir: str) -> AsyncIterator[Session]:
        """Connected. Raises `OSError`, `MCPError` or an `ExceptionGroup` of such."""
        async with AsyncExitStack() as stack:
            transport: Any
            if spec.url is not None:
                transport = streamable_http_client(spec.url, http_client=await self._http(spec, stack))
            else:
                self.child = Child(self._name, spec.command, env, workdir)
                self.ended = self.child.ended
                transport = self.child.streams()
            client = Client(
                transport,
                client_info=_INFO,
                cache=None,  # we keep listings ourselves, with bounds
                message_handler=self._told,
                read_timeout_seconds=spec.connect_s,
            )
            try:
                self._client = await stack.enter_async_context(client)
            except Exception as error:  # of whatever kind: what the program said tells more
                if self.child is None or not self.child.stderr:
                    raise
                said = plain_text(" / ".join(list(self.child.stderr)[-3:]), 500)
                raise Unavailable(f"{error}; it said: {said}") from error
            watching = asyncio.create_task(self._watch())
            try:
                yield self
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _http(self, spec: McpServer, stack: AsyncExitStack) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {spec.token.read()}"} if spec.token is not None else {}
        timeout = httpx2.Timeout(spec.timeout_s, connect=spec.connect_s, pool=_POOL_S)
        client = httpx2.AsyncClient(
            headers=headers, timeout=timeout, transport=BoundedTransport(verify=trust.context()), trust_env=False
        )
        return await stack.enter_async_context(client)

    async def _told(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()

    async def _watch(self) -> None:
        """Servers of 2026-07-28 tell of changes to those who listen; those before tell without being asked."""
        try:
            async with self.client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self.changed.set()
        except (ListenNotSupportedError, SubscriptionLost, MCPError, TimeoutError) as error:
            _log.debug("changes of tools are not told", server=self._name, reason=str(error))
        except Exception as error:  # a supervising task: listings also grow old by themselves
            _log.debug("changes of tools are not told", server=self._name, reason=repr(error))

    async def tools(self, timeout: float) -> list[Mapping[str, Any]]:
        """Its tools as it tells them. Raises as `call`."""
        found: list[Mapping[str, Any]] = []
        cursor: str | None = None
        async with self._answering(timeout):
            for _ in range(_PAGES):
                page = await self.client.list_tools(cursor=cursor)
                found += [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None or len(found) > MOST_TOOLS:
                    break
        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout: float) -> Any:
        """What `tool` returns, as plain values.

        Raises `McpToolFailed`, `InvalidInput`, `Unavailable` when the connection is lost, or `DeadlineExceeded`.
        """
        request = types.CallToolRequest(params=types.CallToolRequestParams(name=tool, arguments=dict(arguments)))
        async with self._answering(timeout):
            # Not `call_tool`: it would have our process evaluate the server's own schemas and patterns.
            result = await self.client.session.send_request(request, _RESULT, request_read_timeout_seconds=timeout)
        if isinstance(result, types.InputRequiredResult):
            raise McpToolFailed("it asks for further input, which agents cannot give", tool=tool)
        return plain(result.model_dump(by_alias=True, mode="json", exclude_none=True), tool)

    @asynccontextmanager
    async def _answering(self, timeout: float) -> AsyncIterator[None]:
        """Errors of the package as ours."""
        try:
            async with asyncio.timeout(timeout):
                yield
        except TimeoutError:
            raise DeadlineExceeded(f"the MCP server {self._name!r} did not answer within {timeout:g} s") from None
        except MCPError as error:
            raise self._known(error) from None
        except ValidationError as error:
            told = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise ServiceError(
                f"the MCP server {self._name!r} answers what the protocol does not have: {told}"
            ) from None
        except (httpx2.HTTPError, OSError, RuntimeError) as error:
            self.ended.set()
            raise Unavailable(f"the MCP server {self._name!r} cannot be reached: {error}") from None

    def _known(self, error: MCPError) -> LLMAgentOSError:
        if error.code == types.REQUEST_TIMEOUT:
            return DeadlineExceeded(f"the MCP server {self._name!r} did not answer in time")
        if error.code == types.CONNECTION_CLOSED:
            self.ended.set()
            return Unavailable(f"the connection to the MCP server {self._name!r} was lost")
        if error.code in (types.INVALID_PARAMS, types.METHOD_NOT_FOUND):
            return InvalidInput(f"the MCP server {self._name!r} refuses: {error.message[:1000]}")
        return ServiceError(
            f"the MCP server {self._name!r}: {error.message[:1000]}", remote_type=f"MCP error {error.code}"
        )
