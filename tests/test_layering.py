"""Folders are floors: imports go down only, modules form no cycle, and name tables are literals."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = {
    "search_spaces": 0,
    "supernet": 1,
    "latency": 1,
    "predictors": 2,
    "quant_search": 2,
    "nas": 3,
    "experiments": 4,
    "tests": 5,
}


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for folder in FLOORS for path in sorted((ROOT / folder).rglob("*.py"))}


def imported(nodes):
    """The modules of the seven folders, and the tests, that import statements name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in FLOORS)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}: name the module in full"
            if node.module.split(".")[0] in FLOORS:
                full = (f"{node.module}.{alias.name}" for alias in node.names)
                yield from (name if name in MODULES else node.module for name in full)


def run_on_import(body):
    """The statements of a module that run when it is imported: none in functions or for the type checker."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from run_on_import(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for field in ("body", "orelse", "finalbody"):
                yield from run_on_import(getattr(node, field, ()))
            for handler in getattr(node, "handlers", ()):
                yield from run_on_import(handler.body)


def allowed(importer, imported):
    return importer == imported or FLOORS[imported] < FLOORS[importer]


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", FLOORS)
def test_imports_go_down_only(folder):
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        if module.split(".")[0] == folder
        for name in imported(ast.walk(tree(path)))
        if not allowed(folder, name.split(".")[0])
    ]
    assert not wrong, wrong


def test_modules_form_no_import_cycle():
    graph = {name: set(imported(run_on_import(tree(path).body))) - {name} for name, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def test_the_checks_see_what_they_should():
    assert allowed("nas", "search_spaces") and allowed("nas", "nas")
    assert not allowed("supernet", "latency") and not allowed("search_spaces", "nas")
    code = ast.parse("if TYPE_CHECKING:\n import nas.a\nelse:\n import nas.b\ndef f():\n import nas.c\nimport torch")
    assert list(imported(run_on_import(code.body))) == ["nas.b"]
    assert set(imported(ast.walk(code))) == {"nas.a", "nas.b", "nas.c"}
    assert list(imported(ast.walk(ast.parse("from search_spaces import space")))) == ["search_spaces.space"]


@pytest.mark.skipif(not (ROOT / "nas/__init__.py").exists(), reason="the package nas is not written yet")
def test_importing_nas_loads_no_torch():
    code = "import sys, nas; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", sorted(ROOT.glob("*/catalog.py")), ids=dotted)
def test_catalogs_are_dict_literals(path):
    body = tree(path).body
    tables = [n.value for n in body if isinstance(n, (ast.Assign, ast.AnnAssign)) and isinstance(n.value, ast.Dict)]
    assert tables, "a catalog holds its names in a dict literal"
    for table in tables:
        assert all(isinstance(key, ast.Constant) for key in table.keys), "a name is written out"
    statements = [node for node in body if isinstance(node, (ast.Expr, ast.For, ast.While, ast.Delete, ast.AugAssign))]
    assert statements in ([], body[:1]), "importing a catalog registers nothing"  # the docstring alone
