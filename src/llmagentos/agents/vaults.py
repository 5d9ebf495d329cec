"""The server's side of redaction: no text reaches a run's stored log before it went through here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from llmagentos.agents.redacting import changed
from llmagentos.api.runs import Answered, Created, Data, Run
from llmagentos.security.redaction import Vault, each_text, unnumbered

_REMEMBER = 512


class Values(Protocol):
    """Where the values behind placeholders are kept."""

    async def load(self, run: str) -> dict[str, str]: ...
    async def save(self, run: str, values: Mapping[str, str]) -> None: ...
    async def expire(self, run: str, seconds: float) -> None: ...


class Unkept:
    """Values that nobody keeps: known for as long as the process remembers them."""

    async def load(self, run: str) -> dict[str, str]:
        """Nothing."""
        return {}

    async def save(self, run: str, values: Mapping[str, str]) -> None:
        """Kept nowhere."""

    async def expire(self, run: str, seconds: float) -> None:
        """Nothing to forget."""


class Vaults:
    """The placeholders of all runs whose logs are redacted."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: OrderedDict[str, Vault] = OrderedDict()

    async def begin(self, run: str, created: Created, attached: Iterable[str], before: str | None) -> Created:
        """The run's first event; `before` is the session's run before it, whose placeholders it goes on with."""
        if not created.redact:
            return created
        vault = Vault(created.redact, await self._values.load(before) if before else {})
        redacted = changed(created, vault.redact)
        for text in attached:
            vault.redact(text)
        await self._values.save(run, vault.values)
        self._remember(run, vault)
        assert isinstance(redacted, Created)
        return redacted

    async def redacted(self, run: str, created: Created, data: Iterable[Data]) -> list[Data]:
        """`data` as it may be stored; what is behind new placeholders is stored before."""
        if not created.redact:
            return list(data)
        vault = await self._vault(run, created)
        before = len(vault.values)
        redacted = [changed(item, vault.redact) for item in data]
        if len(vault.values) > before:
            await self._values.save(run, vault.values)
        return redacted

    async def values(self, run: str, created: Created) -> dict[str, str]:
        """What stands behind the run's placeholders, for its host."""
        return dict((await self._vault(run, created)).values) if created.redact else {}

    async def shown(self, run: Run, created: Created, viewer: str) -> Run:
        """The run as `viewer` sees it: with the values in the answer when they asked, and may have them back."""
        if not (created.redact and created.restore_s and created.by == viewer):
            return run
        vault = Vault((), await self._values.load(run.id))
        answer = changed(Answered(run.answer or "", run.sources, output=run.output), vault.restore)
        assert isinstance(answer, Answered)
        text = None if run.answer is None else answer.text
        return replace(run, input=vault.restore(run.input), answer=text, output=answer.output, sources=answer.sources)

    async def handed_on(self, run: str, created: Created, answered: Answered) -> Answered:
        """The answer for the run that asked for this one, which numbers placeholders in its own way."""
        if not created.redact:
            return answered
        vault = Vault((), await self._values.load(run))
        handed = changed(answered, lambda text: unnumbered(vault.restore(text)))
        assert isinstance(handed, Answered)
        return handed

    async def ended(self, run: str, created: Created) -> None:
        """The run is over: its values are forgotten, at once or after the time for which they are shown."""
        if created.redact:
            self._known.pop(run, None)
            await self._values.expire(run, created.restore_s)

    async def _vault(self, run: str, created: Created) -> Vault:
        vault = self._known.get(run)
        if vault is None:
            vault = Vault(created.redact, await self._values.load(run))
            each_text([created.summary, *(t.input + "\n" + t.answer for t in created.history)], vault.redact)
            self._remember(run, vault)
        return vault

    def _remember(self, run: str, vault: Vault) -> None:
        self._known[run] = vault
        self._known.move_to_end(run)
        while len(self._known) > _REMEMBER:
            self._known.popitem(last=False)
