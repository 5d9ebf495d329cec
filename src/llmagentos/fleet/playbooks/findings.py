"""What a check of a playbook finds: each with its place; errors keep it from being queued, warnings do not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from llmagentos.fleet.playbooks.document import PlaybookError

MAX_FINDINGS = 500


class Finding(msgspec.Struct, frozen=True):
    """Something wrong, or probably wrong."""

    file: str
    line: int
    severity: Literal["error", "warning"]
    code: str
    message: str
    """Without the place."""
    hint: str | None = None

    def error(self) -> PlaybookError:
        """As the error that it is when nothing else is looked for."""
        return PlaybookError(f"{self.file}:{self.line}: {self.message}", hint=self.hint, file=self.file, line=self.line)


@dataclass(slots=True)
class Findings:
    """Collects what is found, or stops at the first error: `lint` tells all, the check before a run the first."""

    stops: bool = True
    found: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep it. Raises `PlaybookError` for an error when this stops at the first."""
        if self.stops and finding.severity == "error":
            raise finding.error()
        if len(self.found) < MAX_FINDINGS and finding not in self.found:
            self.found.append(finding)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """What is raised within is kept, and the check goes on after it, unless this stops at the first."""
        try:
            yield
        except PlaybookError as error:
            if self.stops:
                raise
            file, line = str(error.details["file"]), int(str(error.details["line"]))
            message = error.message.removeprefix(f"{file}:{line}: ")
            self.add(Finding(file, line, "error", "syntax", message, error.hint))
