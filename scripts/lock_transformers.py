"""Writes requirements-transformers.lock: torch's CPU builds and transformers, without what GPUs need.

`torch` from PyPI brings several GB of CUDA on Linux. The tests need none of it, so they get their own lock, which
is installed with `--no-deps`: hashes of CPU builds only, no package of NVIDIA. `make lock` runs this; it needs uv.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements-transformers.lock"
_FOR_GPUS = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton)")


def main() -> None:
    """Resolve, drop, and keep the hashes of what this machine's pip installs and of the wheels for macOS."""
    command = ["uv", "pip", "compile", "-q", "--universal", "--generate-hashes", "--no-emit-index-url", "--no-header"]
    command += ["--no-annotate", "--python-version", "3.11", "-c", "requirements-dev.lock"]
    resolved = subprocess.run(
        [*command, "requirements-transformers.in"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    pinned = {_name(block) for block in _blocks((ROOT / "requirements-dev.lock").read_text())}
    blocks = []
    for block in _blocks(resolved.stdout):
        if _FOR_GPUS.match(block) or _name(block) in pinned:
            continue
        blocks.append(_cpu_only(block) if _name(block) == "torch" else block)
    LOCK.write_text("".join(blocks))


def _blocks(text: str) -> list[str]:
    """The requirements with their hashes."""
    return [block for block in re.split(r"^(?=[a-zA-Z])", text, flags=re.MULTILINE) if "==" in block]


def _name(block: str) -> str:
    return re.split(r"[=\[; ]", block, maxsplit=1)[0]


def _cpu_only(block: str) -> str:
    version = block.split("==")[1].split()[0]
    with tempfile.TemporaryDirectory() as directory:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, f"torch=={version}"]
        subprocess.run(pip, check=True)
        mac = [*pip, "--only-binary=:all:", "--platform", "macosx_14_0_arm64"]
        for python in ("3.11", "3.12", "3.13"):
            subprocess.run([*mac, "--python-version", python], check=True)
        wheels = [path for path in sorted(Path(directory).glob("torch-*.whl")) if re.search(r"\+cpu|macosx", path.name)]
        hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in wheels]
    lines = [f"torch=={version}", *(f"    --hash=sha256:{digest}" for digest in sorted(set(hashes)))]
    return " \\\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
