from __future__ import annotations

import io
import json

import structlog

from llmagentos.core import log


def test_lines_are_json_with_the_bound_ids_and_without_secrets() -> None:
    out = io.StringIO()
    try:
        log.configure(process="test", stream=out)
        with log.bind(run_id="r1"):
            log.get("room").info("called", token="lao_admin_secret", 名字="目录")
        log.get("room").debug("not shown")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert len(lines) == 1
    line = lines[0]
    assert (line["process"], line["run_id"], line["event"], line["level"]) == ("test", "r1", "called", "info")
    assert line["token"] == "[redacted]"
    assert "目录" in out.getvalue()
    assert line["timestamp"].endswith("Z")
