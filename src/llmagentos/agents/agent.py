"""`Agent`: an agent in Python, executed by the module that it is registered with."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import msgspec

from llmagentos.agents.host import AgentHost
from llmagentos.agents.memory_tools import ApiMemory, with_memory
from llmagentos.agents.output import schema_of, typed
from llmagentos.agents.remote import ApiBackend, ApiModels, ApiTools
from llmagentos.agents.tools import Services, Tool, Toolset, function_tool, resolve
from llmagentos.api.agents import AgentSpec, Limits, MemoryUse, Priority, ToolsBy, ToolUse
from llmagentos.api.client import ApiClient
from llmagentos.api.hosting import Claim, HostedAgent
from llmagentos.api.runs import Run
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.core.errors import ConfigError, Conflict


class Module(Protocol):
    """What an agent needs of its module."""

    name: str
    agents: list[str]

    def add_background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...
    @property
    def api(self) -> ApiClient: ...
    @property
    def caller(self) -> Services: ...


class Agent:
    """An LLM with instructions and tools. `module.register_agent(agent)` executes it in that module.

        @tool
        def add(a: int, b: int) -> int:
            "The sum of two numbers."
            return a + b

        agent = Agent("sums", instructions="You do sums.", tools=[add, "catalogue.find_product"])

    `tools` are functions (marked with `@tool` or not), names of service methods (`"service.method"`), and
    `ToolUse` for what an agent in YAML has too: `ToolUse(mcp="files")`, `ToolUse(agent="support")`,
    `ToolUse(playbook="restart.yml", bundle=...)`, `ToolUse(a2a="weather")`. `ground` is a function or a method
    that is called first with the request; the agent then answers only from what it returns. `priority` is whose
    calls to models go first: -20 (first) to 19 (last), "realtime", "interactive" or "batch". `output` is the form of
    its answers: a pydantic model, a msgspec Struct, a dataclass, a TypedDict or a JSON Schema. Raises `ConfigError`
    for what can never work.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str = "default",
        instructions: str = "",
        tools: Sequence[Callable[..., Any] | str | ToolUse] = (),
        ground: Callable[..., Any] | str | None = None,
        route: Literal["model", "embedding"] = "model",
        threshold: float | None = None,
        verify: bool = True,
        limits: Limits | None = None,
        team: str | None = None,
        priority: Priority = 0,
        tools_by: ToolsBy = "auto",
        output: Any = None,
        memory: MemoryUse | None = None,
        guardrails: Guardrails | None = None,
    ) -> None:
        self._output = output
        self.functions: dict[str, Tool] = {}
        services: list[ToolUse] = []
        for entry in tools:
            if isinstance(entry, str):
                services.append(ToolUse(entry))
            elif isinstance(entry, ToolUse):
                services.append(entry)
            else:
                self._add(function_tool(entry))
        grounded = ground
        if ground is not None and not isinstance(ground, str):
            made = function_tool(ground)
            self._add(made)
            grounded = made.name
        given: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
        spec = AgentSpec(
            name=name,
            model=model,
            instructions=instructions,
            tools=services,
            ground=grounded if isinstance(grounded, str) else None,
            route=route,
            verify=verify,
            team=team,
            priority=priority,
            tools_by=tools_by,
            output=schema_of(output) if output is not None else None,
            memory=memory or MemoryUse(),
            guardrails=guardrails,
            limits=limits or Limits(),
            **given,
        )
        self.spec = _checked(spec)
        if self.spec.ground and "." not in self.spec.ground and self.spec.ground not in self.functions:
            raise ConfigError(
                f"agent {name!r}: ground={ground!r} is neither a function nor service.method",
                hint="pass the function itself, or e.g. 'catalogue.search'",
            )

    def result(self, run: Run) -> Any:
        """What `run` of this agent answered, as the type that `output` is; its text without one.

        Raises `ValueError` when it does not fit, `Conflict` when the run has no answer.
        """
        if run.answer is None:
            raise Conflict(f"the run {run.id} has no answer: it is {run.state.value}", hint=f"`llmctl trace {run.id}`")
        return run.answer if self._output is None else typed(self._output, run.output)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self.spec.name

    def _add(self, made: Tool) -> None:
        if made.name in self.functions:
            raise ConfigError(f"two tools are called {made.name!r}", hint="@tool(name=...) gives one another name")
        self.functions[made.name] = made

    def attach(self, module: Module) -> None:
        """Have `module` execute this agent. Raises `ConfigError` when it has one of this name."""
        if self.name in module.agents:
            raise ConfigError(f"the module {module.name!r} has an agent {self.name!r} already")
        module.agents.append(self.name)
        agents = _ATTACHED.setdefault(module, [])
        agents.append(self)
        if len(agents) == 1:  # one host carries on the runs of all the module's agents
            module.add_background(lambda: host_in(module, agents))


_ATTACHED: WeakKeyDictionary[Module, list[Agent]] = WeakKeyDictionary()


async def host_in(module: Module, agents: Sequence[Agent]) -> None:
    """Carry on runs of `agents` while `module` runs."""
    by_name = {agent.name: agent for agent in agents}

    at_the_server = ApiTools(lambda: module.api)

    async def tools_of(claim: Claim) -> Toolset:
        spec = claim.agent
        sources = await at_the_server.sources(claim)
        found = await resolve(spec, by_name[spec.name].functions, module.caller, sources)
        return with_memory(found, spec, ApiMemory(lambda: module.api))

    hosted = [HostedAgent(agent.spec, sorted(agent.functions)) for agent in agents]
    backend = ApiBackend(lambda: module.api, module.name, hosted)
    await AgentHost(backend, ApiModels(lambda: module.api), tools_of).serve()


def _checked(spec: AgentSpec) -> AgentSpec:
    try:
        return msgspec.json.decode(msgspec.json.encode(spec), type=AgentSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"agent {spec.name!r}: {error}") from None
