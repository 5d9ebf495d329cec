"""`llmctl simulate`: a trace is written, replayed, shown and drawn; what cannot be read exits with 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llmagentos.cli.main import main
from llmagentos.cli.simulate import simulate


def invoke(*words: str, text: str | None = None) -> Result:
    done = CliRunner().invoke(simulate, list(words), input=text)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_a_generated_trace_is_replayed_shown_and_drawn(tmp_path: Path) -> None:
    trace = invoke("--generate", "mix", "--runs", "30", "--seed", "7").stdout
    assert trace == invoke("--generate", "mix", "--runs", "30", "--seed", "7").stdout
    gantt, fairness = tmp_path / "gantt.svg", tmp_path / "fairness.svg"
    options = ["--policy", "fcfs", "--policy", "oracle", "--gantt", str(gantt), "--fairness", str(fairness)]
    done = invoke("-", *options, text=trace)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["POLICY", "CLASS", "RUNS"]
    assert [line.split()[:3] for line in lines[1:3]] == [["fcfs", "All", "30"], ["fcfs", "long", lines[2].split()[2]]]
    assert gantt.read_text().startswith("<svg")
    assert fairness.read_text().startswith("<svg")


def test_json_has_every_policys_figures(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(invoke("--generate", "heavy-light", "--runs", "16").stdout)
    found = json.loads(invoke(str(path), "--slots", "4", "--prefill", "1e9", "--decode", "100", "--json").stdout)
    assert [report["policy"] for report in found] == ["fcfs", "plas", "fair"]
    assert found[0]["makespan"] == pytest.approx(7.2)
    assert {group["name"] for group in found[0]["kinds"]} == {"heavy", "light"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simulate"], "no trace"),
        (["simulate", "nowhere.jsonl"], "does not exist"),
        (["simulate", "trace.jsonl", "--policy", "best"], "best"),
        (["simulate", "trace.jsonl"], "trace.jsonl:1: not a run"),
        (["simulate", "trace.jsonl", "--generate", "mix"], "--generate"),
    ],
)
def test_bad_input_exits_with_2(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trace.jsonl").write_text("nonsense\n")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
