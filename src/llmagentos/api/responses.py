"""OpenAI's Responses API (Open Responses) on the wire.

Field names and shapes are those of OpenAI's reference. As in `api.llm` a request names every field that is
understood, and an unknown one is refused. Items of the input are read by `llm.responses.items`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Status = Literal["in_progress", "completed", "incomplete", "failed"]
Item = dict[str, Any]
"""An item of a conversation as it was sent."""


# --- the request ------------------------------------------------------------------------------


class TextSettings(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The form of the text."""

    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How much to think. Summaries are not made."""

    effort: str | None = None
    summary: str | None = None


class ResponseStreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stream holds beside the events."""

    include_obfuscation: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`POST /v1/responses`."""

    input: str | list[Item]
    model: str = "default"
    instructions: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextSettings | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    """Counts calls of the provider's own tools, of which there are none here."""
    reasoning: ReasoningSettings | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    metadata: Annotated[dict[str, str], Meta(max_length=16)] | None = None
    include: list[str] | None = None
    truncation: Literal["disabled"] | None = None
    background: Literal[False] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None


# --- the answer -------------------------------------------------------------------------------


class OutputText(msgspec.Struct, frozen=True, tag="output_text"):
    """Text of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[dict[str, Any]] = []


class OutputRefusal(msgspec.Struct, frozen=True, tag="refusal"):
    """Why the model does not answer."""

    refusal: str


class ReasoningText(msgspec.Struct, frozen=True, tag="reasoning_text"):
    """What the model thought."""

    text: str


Part = OutputText | OutputRefusal | ReasoningText
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputMessage(msgspec.Struct, frozen=True, tag="message"):
    """A message of the model."""

    id: str
    status: ItemStatus
    content: list[OutputText | OutputRefusal]
    role: Literal["assistant"] = "assistant"


class OutputReasoning(msgspec.Struct, frozen=True, tag="reasoning"):
    """What the model thought before it answered."""

    id: str
    status: ItemStatus
    content: list[ReasoningText]
    summary: list[Any] = []


class OutputFunctionCall(msgspec.Struct, frozen=True, tag="function_call"):
    """A call of a function that the caller makes. `arguments` is JSON text."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputFunctionCall


class InputDetails(msgspec.Struct, frozen=True):
    """How many of the tokens were known from before."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True):
    """How many of the tokens were thought."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True):
    """Tokens that a response took."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens_details: OutputDetails = OutputDetails()


class ResponseFailure(msgspec.Struct, frozen=True):
    """Why a response failed after it had begun."""

    code: str
    message: str


class Incomplete(msgspec.Struct, frozen=True):
    """Why a response ends early."""

    reason: Literal["max_output_tokens", "content_filter"]


class ModelResponse(msgspec.Struct, frozen=True):
    """A response, whole or as far as it is."""

    id: str
    created_at: int
    model: str
    status: Status
    output: list[OutputItem] = []
    error: ResponseFailure | None = None
    incomplete_details: Incomplete | None = None
    usage: ResponseUsage | None = None
    completed_at: int | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool = True
    metadata: dict[str, str] = {}
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    text: dict[str, Any] = {}
    reasoning: ReasoningSettings | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    truncation: str = "disabled"
    background: bool = False
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    user: str | None = None
    object: Literal["response"] = "response"


class DeletedResponse(msgspec.Struct, frozen=True):
    """`DELETE /v1/responses/{id}`."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItems(msgspec.Struct, frozen=True):
    """`GET /v1/responses/{id}/input_items`: all of them, there is no further page."""

    data: list[Item]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False
    object: Literal["list"] = "list"


# --- events of a stream -----------------------------------------------------------------------


class ResponseEvent(msgspec.Struct, frozen=True):
    """`response.created`, `.in_progress`, `.completed`, `.incomplete` or `.failed`."""

    type: str
    sequence_number: int
    response: ModelResponse


class ItemEvent(msgspec.Struct, frozen=True):
    """`response.output_item.added` or `.done`."""

    type: str
    sequence_number: int
    output_index: int
    item: OutputItem


class PartEvent(msgspec.Struct, frozen=True):
    """`response.content_part.added` or `.done`."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: Part


class PieceEvent(msgspec.Struct, frozen=True):
    """`.delta` or `.done` of `response.output_text`, `.refusal`, `.reasoning_text` or `.function_call_arguments`."""

    type: str
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int | UnsetType = UNSET
    delta: str | UnsetType = UNSET
    text: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    logprobs: list[dict[str, Any]] | UnsetType = UNSET


Event = ResponseEvent | ItemEvent | PartEvent | PieceEvent
