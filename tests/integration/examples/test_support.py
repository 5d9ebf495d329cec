"""Customer service over a catalogue: its eval cases on the real local model, and what the runner says of failures."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.engines import MODEL, Engines
from support.examples import EXAMPLES, apply, evaluate, program
from support.server import StartServer

REAL = "models: {smollm2-135m: {engine: llama.cpp, slots: 2, context: 1024, threads: 1, aliases: [default]}}\n"
WRONG = """
agent: support
cases:
  - name: everything is wrong
    request: Do you sell bicycles?
    expect: {state: failed, contains: [bicycle], lacks: [know], sources: [KET-01], called: [{tool: no.such}]}
"""


@pytest.mark.slow
@pytest.mark.timeout(300)  # on a busy machine
def test_its_cases_are_as_expected_on_the_real_model(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(REAL)
    engines = Engines(server)
    engines.start(MODEL)
    for name in ("catalogue.py", "search.py", "products.csv"):
        shutil.copy(EXAMPLES / "catalogue" / name, tmp_path)
    (tmp_path / "catalogue.yaml").write_text(
        "{shop: Lantern & Loom, currency: EUR, max_results: 2, data: products.csv}"
    )
    try:
        with program(server, "catalogue/catalogue.py", str(tmp_path / "catalogue.yaml")):
            apply(server, "catalogue/support.yaml")
            engines.wait()
            done = evaluate(server, "catalogue/evals.yaml")
            assert done.returncode == 0, done.stdout + done.stderr
            assert "8 of 8 cases are as expected" in done.stdout
            (tmp_path / "wrong.yaml").write_text(WRONG)
            wrong = evaluate(server, tmp_path / "wrong.yaml")
    finally:
        engines.stop()
    assert wrong.returncode == 1
    assert wrong.stdout.count("\n      ") == 6, wrong.stdout
    (tmp_path / "wrong.yaml").write_text("{agent: support, cases: [{name: a, request: b, expect: {contain: [c]}}]}")
    bad = evaluate(server, tmp_path / "wrong.yaml")
    assert bad.returncode == 2
    assert "contain" in bad.stderr
