"""The models by name and alias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llmagentos.core.errors import InvalidInput, NotFound, nearest
from llmagentos.kernel.calls import Capacity
from llmagentos.llm.engines.engine import Engine
from llmagentos.llm.residence import Residence

DEFAULT = "default"
Use = Literal["chat", "embedding"]


class ModelNotFound(NotFound):
    """No model of this name."""

    code = "model_not_found"


@dataclass(frozen=True, slots=True)
class Model:
    """A model as configured: its engines by name, what they take together, and who takes its calls when they fail."""

    name: str
    kind: str
    use: Use
    engines: Mapping[str, Engine]
    capacity: Capacity
    aliases: tuple[str, ...] = ()
    silence_s: float = 300.0
    """Bounds each wait for a token."""
    fallbacks: tuple[str, ...] = ()
    guarded: bool = False
    """Engines that fail too often are left alone for a while."""
    residence: Residence | None = None
    """Of a model that a process of this machine serves."""
    keep_alive: str | None = None
    tools: Literal["native", "schema"] = "schema"
    """How it asks for tools: the tool calls of OpenAI's API, or a JSON object that fits a schema."""
    context: int | None = None
    """Tokens of prompt and answer that a call may have; None when nobody said."""
    vision: bool = False
    """Whether it reads pictures."""


class Directory:
    """Finds models."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def __getitem__(self, name: str) -> Model:
        """The model of exactly this name."""
        return self._models[name]

    def find(self, name: str, use: Use) -> Model:
        """The model that a request means. Raises `ModelNotFound`, or `InvalidInput` for one of another use."""
        if (model := self._models.get(name)) is None:
            named = [m for m in self if name in m.aliases]
            alike = [m for m in self if m.use == use] if name == DEFAULT else []
            fitting = [m for m in named if m.use == use] or alike or named
            if not fitting:
                raise self._not_found(name)
            model = fitting[0]
        if model.use != use:
            raise InvalidInput(f"{name!r} is a model for {model.use}, not for {use}", param="model")
        return model

    def named(self, name: str) -> Model:
        """The model with this name or alias, whatever its use. Raises `ModelNotFound`."""
        found = self._models.get(name) or next((model for model in self if name in model.aliases), None)
        if found is None:
            raise self._not_found(name)
        return found

    def _not_found(self, name: str) -> ModelNotFound:
        known = sorted({*self._models, *(alias for m in self for alias in m.aliases)})
        close = nearest(name, known)
        return ModelNotFound(
            f"there is no model {name!r}; there are {', '.join(known) or 'none'}",
            hint=f"did you mean {close!r}?" if close else None,
            param="model",
        )
