"""Our agents behind the package's A2A dispatchers: tasks are runs.

`message/send` with the same `messageId` by the same caller is the same run, so a client may send again what it is
not sure of.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any

from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    Message,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskArtifactUpdateEvent,
    TaskStatusUpdateEvent,
)
from a2a.utils.errors import (
    A2AError,
    ExtendedAgentCardNotConfiguredError,
    InternalError,
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from google.protobuf.json_format import MessageToDict

from llmagentos.agents.a2a import tasks
from llmagentos.agents.door import Door
from llmagentos.agents.states import RunEnded
from llmagentos.api.runs import ModelCalled, Run, RunDelta
from llmagentos.core.errors import CallerError, LLMAgentOSError, NotFound
from llmagentos.core.ids import id_of, new_id
from llmagentos.security.identity import Identity

AGENT, IDENTITY = "llmagentos.agent", "llmagentos.identity"
"""In the context's state: whose address was called (None: the server's own), and by whom."""
_PAGE = 50
_MOST_PAGE = 100
Event = Message | Task | TaskStatusUpdateEvent | TaskArtifactUpdateEvent


class RunTasks(RequestHandler):
    """What A2A asks, done through `door`."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def on_message_send(self, params: SendMessageRequest, context: ServerCallContext) -> Task | Message:
        """The task, ended unless the caller does not want to wait for that."""
        with _errors():
            run = await self._begin(params, context)
            if not params.configuration.return_immediately and not run.state.ended:
                run = await self._door.ended(run.id, _identity(context))
        return tasks.task(run)

    async def on_message_send_stream(
        self, params: SendMessageRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The task, then what happens to it until it has ended."""
        with _errors():
            run = await self._begin(params, context)
        async for event in self._live(run, _identity(context)):
            yield event

    async def on_subscribe_to_task(
        self, params: SubscribeToTaskRequest, context: ServerCallContext
    ) -> AsyncGenerator[Event]:
        """The same for a task that was begun before."""
        with _errors():
            run = await self._found(params.id, context)
        if run.state.ended:
            raise UnsupportedOperationError(message=f"the task {run.id} has ended")
        async for event in self._live(run, _identity(context)):
            yield event

    async def on_get_task(self, params: GetTaskRequest, context: ServerCallContext) -> Task | None:
        """One task."""
        with _errors():
            run = await self._found(params.id, context)
        return tasks.task(run, history=not params.HasField("history_length") or params.history_length > 0)

    async def on_cancel_task(self, params: CancelTaskRequest, context: ServerCallContext) -> Task | None:
        """The task, stopped."""
        with _errors():
            await self._found(params.id, context)
            try:
                return tasks.task(await self._door.stop(params.id, _identity(context)))
            except RunEnded:
                raise TaskNotCancelableError(message=f"the task {params.id} has ended") from None

    async def on_list_tasks(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Tasks, the newest first, page by page."""
        if params.context_id:
            raise UnsupportedOperationError(message="tasks are not listed by contextId")
        if params.page_token and not (params.page_token.isdecimal() and len(params.page_token) < 9):
            raise InvalidParamsError(message=f"there is no page {params.page_token!r}")
        size = min(params.page_size or _PAGE, _MOST_PAGE)
        offset = int(params.page_token or 0)
        state = next((state for state, other in tasks.STATES.items() if other == params.status), None)
        with _errors():
            found = await self._door.listing(
                _identity(context), agent=context.state[AGENT], state=state, limit=size + 1, offset=offset
            )
            shown = [await self._door.run(run.id, _identity(context)) for run in found[:size]]
        return ListTasksResponse(
            tasks=[tasks.task(run, history=params.history_length > 0) for run in shown],
            page_size=size,
            next_page_token=str(offset + size) if len(found) > size else "",
            total_size=offset + len(found),
        )

    async def on_get_extended_agent_card(
        self, params: GetExtendedAgentCardRequest, context: ServerCallContext
    ) -> AgentCard:
        """There is only the one card."""
        raise ExtendedAgentCardNotConfiguredError

    async def on_create_task_push_notification_config(self, params: Any, context: ServerCallContext) -> Any:
        """Nothing is pushed: follow a task, or ask for it."""
        raise PushNotificationNotSupportedError

    async def on_get_task_push_notification_config(self, params: Any, context: ServerCallContext) -> Any:
        """As above."""
        raise PushNotificationNotSupportedError

    async def on_list_task_push_notification_configs(self, params: Any, context: ServerCallContext) -> Any:
        """As above."""
        raise PushNotificationNotSupportedError

    async def on_delete_task_push_notification_config(self, params: Any, context: ServerCallContext) -> None:
        """As above."""
        raise PushNotificationNotSupportedError

    async def _begin(self, params: SendMessageRequest, context: ServerCallContext) -> Run:
        message, identity = params.message, _identity(context)
        agent = context.state[AGENT] or tasks.agent_of(message, MessageToDict(params.metadata))
        if agent is None:
            names = ", ".join(sorted(one.spec.name for one in await self._door.agents()))
            raise InvalidParamsError(message=f"metadata.agent must name one of the agents: {names or 'there are none'}")
        session, text = tasks.session_of(message), tasks.request_of(message)
        run = id_of("a2a", str(identity), agent, message.message_id) if message.message_id else None
        # A conversation of its own, so that the client can go on with it.
        return await self._door.ask(agent, text, identity, session=session or run or new_id(), run=run)

    async def _found(self, run: str, context: ServerCallContext) -> Run:
        try:
            return await self._door.run(run, _identity(context), agent=context.state[AGENT])
        except NotFound as error:
            raise TaskNotFoundError(message=error.message) from None

    async def _live(self, run: Run, identity: Identity) -> AsyncGenerator[Event]:
        yield tasks.task(run)
        if run.state.ended:
            return
        context_id, state, begun = run.session or run.id, run.state, False
        async for item in self._door.follow(run.id):
            if isinstance(item, RunDelta):
                yield TaskArtifactUpdateEvent(
                    task_id=run.id, context_id=context_id, artifact=tasks.piece(item.text), append=begun
                )
                begun = True
                continue
            if isinstance(item.data, ModelCalled):
                begun = False  # what comes takes the place of what there was
            now = await self._door.run(run.id, identity)
            if now.answer is not None:
                # The whole again: what was streamed may have been replaced.
                whole = tasks.artifact(now.answer, now.sources)
                yield TaskArtifactUpdateEvent(
                    task_id=run.id, context_id=context_id, artifact=whole, append=False, last_chunk=True
                )
            if now.state is not state:
                state = now.state
                yield TaskStatusUpdateEvent(task_id=run.id, context_id=context_id, status=tasks.status(now))
            if state.ended:
                return


def _identity(context: ServerCallContext) -> Identity:
    identity = context.state[IDENTITY]
    assert isinstance(identity, Identity)
    return identity


@contextmanager
def _errors() -> Iterator[None]:
    """Our errors in A2A's terms."""
    try:
        yield
    except A2AError:
        raise
    except LLMAgentOSError as error:
        told = f"{error.message} ({error.hint})" if error.hint else error.message
        kind = InvalidParamsError if isinstance(error, CallerError) else InternalError
        raise kind(message=told, data={"code": error.code}) from None
