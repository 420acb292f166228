"""A folder of dropasr imports only from folders before it, also inside functions; light modules stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

ORDER = (
    "processor errors files log paths workers config scoring data lang models compaction methods decoding runtime training adapt report"
    " stages options bench stamps invocation transcribe verbs cli __main__"
).split()
PACKAGE = REPOSITORY / "dropasr"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(source: str) -> set[str]:
    """Second parts of the names `dropasr.X…` that a module imports anywhere in its text."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer: write `from dropasr.X import …`"
            names += [f"dropasr.{alias.name}" for alias in node.names] if node.module == "dropasr" else [node.module or ""]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return {name.split(".")[1] for name in names if name.startswith("dropasr.")}


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imported_sees_lazy_and_dynamic_imports():
    source = "import dropasr.a.b\nfrom dropasr import c\ndef f():\n    from dropasr.d import e\n    importlib.import_module('dropasr.g')\n"
    assert imported(source) == {"a", "c", "d", "g"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path: Path):
    own = layer(path)
    assert own in ORDER, f"{path}: give '{own}' a place in ORDER"
    allowed = set(ORDER[: ORDER.index(own) + 1]) | {"__version__"}
    assert imported(path.read_text(encoding="utf-8")) <= allowed


def loaded(code: str, *flags: str) -> set[str]:
    """Top-level modules in memory after `code` ran in a fresh Python."""
    script = f"{code}; import sys; print(*{{name.split('.')[0] for name in sys.modules}})"
    command = [sys.executable, *flags, "-c", script]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split())


def test_checking_a_stage_imports_nothing_heavy():
    modules = loaded("import dropasr.cli, dropasr.options, dropasr.config, dropasr.stages, dropasr.stamps")
    assert not modules & {"torch", "lhotse", "numpy", "k2", "torchaudio", "scipy", "matplotlib"}


def test_options_need_the_standard_library_only():
    assert "dropasr" in loaded("import dropasr.options", "-S")
    assert not loaded("import dropasr.options") & {"yaml", "pydantic", "rich"}
