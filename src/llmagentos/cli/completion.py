"""`llmctl completion`: the script that teaches a shell to complete our commands."""

from __future__ import annotations

import click

from llmagentos.cli.output import emit
from llmagentos.core.i18n import tr

SHELLS = ("bash", "zsh", "fish")
_INSTALL = {
    "bash": 'eval "$(llmctl completion bash)"',
    "zsh": 'eval "$(llmctl completion zsh)"',
    "fish": "llmctl completion fish | source",
}


@click.command(help=tr("Print the completion script of a shell. For bash: {line} in ~/.bashrc.", line=_INSTALL["bash"]))
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """The script calls `llmctl` itself, so it never lags behind the commands."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # SHELLS are all built into click
    emit(f"# {_INSTALL[shell]}")
    emit(kind(ctx.find_root().command, {}, "llmctl", "_LLMCTL_COMPLETE").source())
