"""`python -m llmagentos.llm.engines.transformers --spec JSON`: one model until the process is killed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from llmagentos.core.errors import ConfigError
from llmagentos.llm.engines import process, serving
from llmagentos.llm.engines.local import Spec

_QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}


def serve(spec: Spec, ready: Callable[[], None]) -> None:
    """Load the model and serve it. Raises `ConfigError` when it cannot be loaded, or not served in batches."""
    os.environ |= {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        from llmagentos.llm.engines.transformers import app, batcher, loading, rows
    except ImportError as error:
        raise ConfigError(
            f"the packages of the engine transformers are not installed ({error})",
            hint="pip install 'llmagentos[transformers]'",
        ) from None
    loaded = loading.load(spec)
    stepper = rows.Stepper(loaded.model)
    if spec.slots > 1 and not batcher.check(stepper, loaded.model.config.get_text_config().vocab_size):
        raise ConfigError(
            f"{spec.path!r} gives other answers in a batch than alone: its architecture keeps no plain key-value cache",
            hint=f"models.{spec.model}.slots: 1",
        )
    batch = batcher.Batcher(stepper, slots=spec.slots, start=loaded.start)
    batch.start()
    serving.serve(app.App(loaded, batch), spec.socket, ready)


if __name__ == "__main__":
    sys.exit(process.run(serve))
