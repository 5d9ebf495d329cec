"""Calls to models on the wire: OpenAI's chat completions, models and embeddings, and what we say of models.

Field names and shapes are those of OpenAI's API reference, so that its clients work unchanged.
Requests name every field that is understood: an unknown one is refused rather than ignored.
Answers of engines are decoded leniently: what an engine adds is dropped.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

RUN_HEADER = "X-LLMAgentOS-Run"
PURPOSE_HEADER = "X-LLMAgentOS-Purpose"
TIMEOUT_HEADER = "X-LLMAgentOS-Timeout"
PRIORITY_HEADER = "X-LLMAgentOS-Priority"

Purpose = Literal["answer", "tool"]
"""What a call of a run is for: text of `answer` calls is shown to whoever watches the run."""


# --- chat: the request ------------------------------------------------------------------------


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of the conversation. `content` is text, or OpenAI's list of content parts."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stream holds beside the text."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`. Without `max_tokens` a call ends where the model or its context does."""

    messages: Annotated[list[Message], Meta(min_length=1)]
    model: str = "default"
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    timings_per_token: bool | None = None
    """llama.cpp: tell with each piece how many tokens it makes."""
    metadata: dict[str, str] | None = None
    modalities: list[str] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    user: str | None = None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return self.n or 1

    @property
    def limit(self) -> int | None:
        """The most tokens to generate for each answer."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


# --- chat: the answer -------------------------------------------------------------------------


class Usage(msgspec.Struct, frozen=True):
    """Tokens that a call took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: dict[str, Any] | UnsetType | None = UNSET
    completion_tokens_details: dict[str, Any] | UnsetType | None = UNSET

    def detail(self, of: Literal["prompt", "completion"], name: str) -> int:
        """A number of the details that engines tell, e.g. `cached_tokens` of the prompt; 0 without it."""
        details = self.prompt_tokens_details if of == "prompt" else self.completion_tokens_details
        value = details.get(name) if isinstance(details, dict) else None
        return value if isinstance(value, int) else 0


class Waits(msgspec.Struct, frozen=True):
    """How long a call waited, in seconds; beside what OpenAI tells."""

    queue_s: float
    """For a slot of the engine."""
    ttft_s: float | None
    """For the first piece of the answer, the wait for the slot included."""


class Delta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one chunk adds to the answer."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """What a chunk adds to one choice."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class Timings(msgspec.Struct, frozen=True):
    """What llama.cpp tells with a piece: tokens of the prompt that it read and had read before, and of the answer."""

    prompt_n: int = 0
    cache_n: int = 0
    predicted_n: int = 0


class ChatChunk(msgspec.Struct, frozen=True):
    """One piece of a streamed answer."""

    id: str = ""
    created: int = 0
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: Usage | UnsetType | None = UNSET
    waits: Waits | UnsetType = UNSET
    object: str = "chat.completion.chunk"
    timings: Timings | UnsetType = UNSET

    @property
    def text(self) -> str:
        """The text that it adds to the first choice."""
        return "".join(choice.delta.content or "" for choice in self.choices if choice.index == 0)

    @property
    def adds(self) -> bool:
        """Whether it adds to the answer, and does not only open or end it."""
        deltas = (choice.delta for choice in self.choices)
        return any(d.content or d.reasoning_content or d.refusal or d.tool_calls for d in deltas)

    @property
    def opens(self) -> bool:
        """Whether it says nothing but that there will be an answer."""
        ended = any(choice.finish_reason is not None or choice.logprobs for choice in self.choices)
        return not (self.adds or ended)


class AnswerMessage(msgspec.Struct, frozen=True):
    """The whole answer."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class Choice(msgspec.Struct, frozen=True):
    """One answer of a completion."""

    message: AnswerMessage
    finish_reason: str | None
    index: int = 0
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct, frozen=True):
    """The answer of a call that does not stream."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    waits: Waits | UnsetType = UNSET
    object: str = "chat.completion"

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.choices[0].message.content or ""


# --- models and embeddings --------------------------------------------------------------------


class ModelCard(msgspec.Struct, frozen=True):
    """A model in OpenAI's list."""

    id: str
    created: int
    owned_by: str
    object: str = "model"


class ModelList(msgspec.Struct, frozen=True):
    """`GET /v1/models`."""

    data: list[ModelCard]
    object: str = "list"


class EmbeddingRequest(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """`POST /v1/embeddings`. `input_type` tells models that distinguish them queries from passages."""

    input: str | Annotated[list[str], Meta(min_length=1, max_length=2048)]
    model: str = "default"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    input_type: Literal["query", "passage"] | None = None
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """The input as a list."""
        return [self.input] if isinstance(self.input, str) else self.input


class Embedding(msgspec.Struct, frozen=True):
    """One vector; with `encoding_format: base64` as little-endian float32."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class Embeddings(msgspec.Struct, frozen=True):
    """The vectors of all inputs, in their order."""

    data: list[Embedding]
    model: str
    usage: Usage = msgspec.field(default_factory=Usage)
    object: str = "list"


# --- ours -------------------------------------------------------------------------------------


ModelState = Literal["unloaded", "loading", "ready", "failed", "unreachable"]
"""Of a model on this machine: in memory or not, or why not (`failed`). Of any other: whether something answers."""


class ReplicaInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One engine of a model. What the engine says of itself is there when it says it."""

    name: str
    state: ModelState
    running: int
    """Calls of ours that it answers now."""
    note: str | None = None
    server: str | None = None
    """The program: vllm, sglang, llama.cpp, ollama, transformers."""
    version: str | None = None
    requests_running: int | None = None
    """Calls of everybody, as it says itself."""
    requests_waiting: int | None = None
    cache_usage: float | None = None
    """Share of its key-value cache that is in use, 0 to 1."""
    tokens_per_s: float | None = None
    ttft_s: float | None = None
    """Mean time to the first token since it started."""
    memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    unloads_at: float | None = None
    """When it drops the model if nobody calls, wall-clock seconds."""
    pid: int | None = None


class ModelInfo(msgspec.Struct, frozen=True):
    """A model and how busy it is. `note` says why it is not ready."""

    name: str
    engine: str
    use: Literal["chat", "embedding"]
    state: ModelState
    aliases: list[str]
    slots: int
    running: int
    waiting: int
    queue: int
    note: str | None = None
    tokens_per_s: float = 0.0
    """Tokens generated here in the last minute, a second."""
    memory_bytes: int | None = None
    """Main memory of its processes on this machine, or what its server says."""
    device_memory_bytes: int | None = None
    keep_alive: str | None = None
    """Of a model that this system loads: always, on_demand, or how long it stays without a call."""
    since: float | None = None
    """When it came into its state, wall-clock seconds."""
    unloads_at: float | None = None
    replicas: list[ReplicaInfo] = []


class LoadModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/v1/models/{name}/load`: an empty object."""


class UnloadModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/v1/models/{name}/unload`."""

    force: bool = False
    """Even while calls use it: they fail."""


class RunningCall(msgspec.Struct, frozen=True):
    """A call that has a slot. `since` is in wall-clock seconds."""

    id: str
    caller: str
    tenant: str
    """Whose share of the model it uses: who asked for the run, or the caller itself."""
    priority: int
    """Nice value: -20 goes before all others, 19 after them."""
    since: float
    tokens_out: int
    run_id: str | None = None


class WaitingCall(msgspec.Struct, frozen=True):
    """A call that waits: at which place (1 is next, if nothing else comes), since when, and for what."""

    id: str
    caller: str
    tenant: str
    priority: int
    since: float
    position: int
    reason: Literal["slots", "loading", "rate", "backoff", "held", "preempted"]
    """A free slot, that the model is loaded, a limit per minute, the time that the endpoint asked for, that its run is
    resumed, or a slot again after it gave its own to a more urgent call."""
    run_id: str | None = None


class ModelQueue(msgspec.Struct, frozen=True):
    """Who uses a model and who waits for it. The lists may be shorter than the counts."""

    model: str
    slots: int
    """Calls that may run at once, by now."""
    running_count: int
    waiting_count: int
    running: list[RunningCall]
    waiting: list[WaitingCall]


class CallInfo(msgspec.Struct, frozen=True):
    """One call to a model as it was metered. `at` is its start in wall-clock seconds, times are seconds."""

    id: str
    at: float
    model: str
    engine: str
    operation: str
    caller: str
    status: Literal["succeeded", "failed", "cancelled", "cut_off"]
    tokens_in: int
    tokens_out: int
    queue_s: float
    duration_s: float
    ttft_s: float | None = None
    run_id: str | None = None
    error: str | None = None
    budget: str | None = None
    """The node of the budgets in which it counts, as one call; None when it does not."""
    charged: int = 0
    """Tokens that were counted: what it took, or all that it held when the server did not live to see its end."""
    money: int = 0
    """Billionths of the currency that were counted."""
