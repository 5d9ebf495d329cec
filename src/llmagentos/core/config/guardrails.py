"""What is kept from models and from what is stored, and how foreign text is marked: for all agents, or for one."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Kind = Literal["email", "phone", "id_card", "bank_card", "keys"]
Where = Literal["prompts", "logs"]


class Attachments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Files that go with requests."""

    bytes: Annotated[int, Meta(ge=1024, description="Largest file")] = 4 * 1024 * 1024
    run_bytes: Annotated[int, Meta(ge=1024, description="All files of one run")] = 8 * 1024 * 1024
    text_bytes: Annotated[
        int, Meta(ge=1024, description="Text of all files of one run: it becomes part of a prompt")
    ] = 256 * 1024


class Guardrails(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Redaction of personal data and secrets, and marking of what comes from outside."""

    redact: Annotated[
        list[Kind],
        Meta(
            description="What is replaced by placeholders such as <EMAIL_1>: e-mail addresses, phone numbers, Chinese "
            "ID cards, bank cards, keys (AWS, GitHub, sk-..., our own, PEM, JWT)"
        ),
    ] = []
    where: Annotated[
        list[Where],
        Meta(
            description="prompts: what models read; logs: also what is stored of runs (the values are kept sealed "
            "beside the run, for `values_s`)"
        ),
    ] = msgspec.field(default_factory=lambda: ["prompts"])
    restore: Annotated[
        bool, Meta(description="Whether the values stand in the answer again, for who asked; tools always get them")
    ] = True
    values_s: Annotated[
        float, Meta(gt=0, description="With `logs`: seconds after a run's end for which its values are still known")
    ] = 3600.0
    mark: Annotated[
        bool,
        Meta(description="Whether results of tools and attachments are marked for the model as data, not instructions"),
    ] = True

    @property
    def prompts(self) -> tuple[str, ...]:
        """What models must not read."""
        return tuple(self.redact) if self.where else ()

    @property
    def logs(self) -> tuple[str, ...]:
        """What must not be stored."""
        return tuple(self.redact) if "logs" in self.where else ()
