"""The node agent's state directory: its layout and the node's identity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from llmagentos.core.errors import ConfigError
from llmagentos.core.files import write_whole
from llmagentos.core.state import StateDirectory, StateUnusable


class Identity(msgspec.Struct, frozen=True):
    """Who this node is, to which server."""

    name: str
    server: str


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """Where each thing stands below `root`."""

    root: Path

    @property
    def identity(self) -> Path:
        """The node's `Identity`."""
        return self.root / "identity.json"

    @property
    def credential(self) -> Path:
        """The node's key and certificate, 0600."""
        return self.root / "credential.pem"

    @property
    def counter(self) -> Path:
        """The end of the numbers that its assertions may have used."""
        return self.root / "counter"

    @property
    def jobs(self) -> Path:
        """One directory per job, by number."""
        return self.root / "jobs"

    @property
    def units(self) -> Path:
        """Module units, `NAME.yaml`, as playbooks write them."""
        return self.root / "modules.d"

    @property
    def collect(self) -> Path:
        """What to collect beside the machine's own values, `NAME.yaml`, as playbooks write them."""
        return self.root / "collect.d"

    @property
    def telemetry(self) -> Path:
        """What was collected and not yet sent, and how far logs were read."""
        return self.root / "telemetry"

    @property
    def modules(self) -> Path:
        """One directory per module: its token and its log."""
        return self.root / "modules"

    @property
    def ansible(self) -> Path:
        """ansible-core's own state: collections, temporary files."""
        return self.root / "ansible"

    @property
    def metrics_token(self) -> Path:
        """The token for `/metrics` of the node agent, 0600."""
        return self.root / "metrics.token"

    @property
    def endpoint(self) -> Path:
        """Where the node agent serves `/metrics`, as one line; there while it runs."""
        return self.root / "metrics.address"

    def prepare(self) -> None:
        """Make what is missing, for the owner only. Raises `StateUnusable`."""
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            StateDirectory(self.root).check()
            for directory in (self.jobs, self.units, self.collect, self.telemetry, self.modules, self.ansible):
                directory.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise StateUnusable(
                f"the node's state directory {str(self.root)!r} cannot be used: {error.strerror}",
                hint="name another with --state DIR",
            ) from None

    def read_identity(self) -> Identity | None:
        """The identity; None before the node joined. Raises `ConfigError` for a file that is damaged."""
        try:
            return msgspec.json.decode(self.identity.read_bytes(), type=Identity)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                f"{self.identity}: cannot be read: {error}",
                hint="delete it, remove the node with `llmctl node remove`, and join again with a new token",
            ) from None

    def write_identity(self, identity: Identity) -> None:
        """Keep the identity."""
        write_whole(self.identity, msgspec.json.encode(identity))
