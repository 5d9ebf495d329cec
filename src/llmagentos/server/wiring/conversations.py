"""What runs are surrounded by: the model's context, files, guardrails, sessions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.agents.attachments import Attachments
from llmagentos.agents.ledger import Ledger
from llmagentos.agents.vaults import Vaults
from llmagentos.api.agents import AgentSpec
from llmagentos.api.runs import Attachment
from llmagentos.core.config.guardrails import Guardrails
from llmagentos.core.errors import CallerError, ConfigError
from llmagentos.core.files import write_whole
from llmagentos.llm.gateway import Gateway
from llmagentos.server.routes import attachments
from llmagentos.server.routes.runs import Attach
from llmagentos.server.wiring.foundation import Foundation, Parts
from llmagentos.storage.attachments import AttachmentRecords
from llmagentos.storage.blobs import Blobs
from llmagentos.storage.values import ValueRecords


def wire(base: Foundation, parts: Parts, gateway: Gateway, ledger: Ledger) -> Attach:
    """Tell `ledger` what surrounds its runs; returns what checks the files of a new one."""
    config = base.config
    values = ValueRecords(base.database, base.clock, _key(base.state.keys / "values.pem"))
    blobs = Blobs(base.state.root / "attachments")
    records = AttachmentRecords(base.database, base.clock, blobs, days=config.retention.attachments_days)
    limits = config.attachments
    files = Attachments(records, text_bytes=limits.text_bytes, run_bytes=limits.run_bytes)

    def context_of(model: str) -> int:
        try:
            return gateway.chat_model(model).context or 0
        except CallerError:  # the run itself will say that there is no such model
            return 0

    async def attach(owner: str, spec: AgentSpec, given: Sequence[Attachment]) -> list[Attachment]:
        if not given:
            return []
        vision = gateway.chat_model(spec.model).vision
        return await files.checked(owner, given, model=spec.model, vision=vision)

    around = ledger.around
    around.guardrails = config.guardrails if config.guardrails != Guardrails() else None
    around.context_of = context_of
    around.attached_of = files.contents
    around.vaults = Vaults(values)
    parts.prune += [records.prune, values.prune]
    parts.endpoints += attachments.endpoints(files, most=limits.bytes)
    return attach


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in `path`, which is made on first use (0600)."""
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        pem = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_whole(path, pem)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path}: not a key on P-256", hint="delete it: what it sealed is forgotten")
    return key
