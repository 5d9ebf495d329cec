from __future__ import annotations

import json
from pathlib import Path

from llmagentos.core.config import json_schema

ROOT = Path(__file__).parents[4]


def test_the_committed_schema_is_the_schema() -> None:
    committed = json.loads((ROOT / "docs" / "llmagentos.schema.json").read_text("utf-8"))
    assert committed == json.loads(json.dumps(json_schema())), (
        "run `llmctl config schema > docs/llmagentos.schema.json`"
    )


def test_editors_learn_what_each_key_means() -> None:
    definitions = json_schema()["$defs"]
    undescribed = [
        f"{kind}.{name}"
        for kind, definition in definitions.items()
        for name, prop in definition.get("properties", {}).items()
        if "$ref" not in prop and not prop.get("description") and name not in ("engine",)
    ]
    # Values whose name says it all, or that stand in for a described structure.
    assert set(undescribed) <= {
        "Server.tls",
        "OpenAI.api_key",
        "Database.password",
        "Log.level",
        "Retention.runs_days",
        "Retention.jobs_days",
        "Retention.calls_days",
        "Retention.responses_days",
        "Approvals.webhook",
    }
    assert definitions["Config"]["additionalProperties"] is False
    assert definitions["SecretRef"]["oneOf"] == [{"required": ["env"]}, {"required": ["file"]}]
