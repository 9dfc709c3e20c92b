"""Several modules as one script: their sources one after another, without their imports of each other.

What is timed on a machine without the toolkit is so timed by the very lines that time it here.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_JOINED = "latency"  # the package whose modules are taken in
_THERE = frozenset({"numpy", "onnxruntime"})  # what a script may import besides the standard library


@dataclass(frozen=True)
class _Module:
    """A module that is taken in: its dotted name, its source, and what that says."""

    name: str
    source: str
    tree: ast.Module

    @property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        """Its imports at the top."""
        return [node for node in self.tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]

    @property
    def needs(self) -> list[str]:
        """The modules that it takes from the package."""
        return [str(node.module) for node in self.imports if isinstance(node, ast.ImportFrom) and _is_joined(node)]

    @property
    def defined(self) -> set[str]:
        """The names that it gives to things at the top."""
        found: set[str] = set()
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        return found


def joined(root: str, preamble: str, epilogue: str) -> str:
    """The source of a script: the module `root` with all that it takes from its package, in the order of their needs.

    Private names that several modules give are told apart by the names of their modules.

    Args:
        preamble: what stands at the beginning, after the import from `__future__`.
        epilogue: what stands at the end.

    Raises:
        ValueError: a module that imports what a script cannot have, or a public name that two modules give.
    """
    modules = list(_in_order(root, set()))
    counted = Counter(name for module in modules for name in module.defined)
    shared = {name for name, n in counted.items() if n > 1}
    if public := sorted(name for name in shared if not name.startswith("_")):
        raise ValueError(f"the modules of a script must give different public names, got {public[0]!r} twice")
    imports = sorted({line for module in modules for line in _import_lines(module)})
    names = {line.rpartition(" ")[2] for line in imports}
    if both := sorted(names & counted.keys()):
        raise ValueError(f"a script imports {both[0]!r}, and one of its modules gives that name to something else")
    parts = [_body(module, shared & module.defined) for module in modules]
    return "\n".join(["from __future__ import annotations\n", preamble, *imports, "", *parts, "", epilogue, ""])


def _in_order(name: str, seen: set[str]) -> Iterator[_Module]:
    """The module and those that it needs, these first."""
    if name in seen:
        return
    seen.add(name)
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"no module {name} to make a script of")
    source = Path(spec.origin).read_text(encoding="utf-8")
    module = _Module(name, source, ast.parse(source))
    for needed in module.needs:
        yield from _in_order(needed, seen)
    yield module


def _is_joined(node: ast.ImportFrom) -> bool:
    return str(node.module).partition(".")[0] == _JOINED


def _import_lines(module: _Module) -> Iterator[str]:
    """The imports from outside the package, a name a line."""
    for node in module.imports:
        if isinstance(node, ast.ImportFrom) and (node.module == "__future__" or _is_joined(node)):
            continue
        for alias in node.names:
            one = ast.Import([alias]) if isinstance(node, ast.Import) else ast.ImportFrom(node.module, [alias], 0)
            package = (alias.name if isinstance(node, ast.Import) else str(node.module)).partition(".")[0]
            if package not in _THERE and package not in sys.stdlib_module_names:
                raise ValueError(
                    f"{module.name} imports {package}, which a script cannot have: import it where it is needed"
                )
            yield ast.unparse(one)


def _body(module: _Module, shared: set[str]) -> str:
    """The source without imports at the top, its own names in the place of those that others give as well."""
    lines = module.source.splitlines()
    for node in module.tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)) or _for_types_only(node):
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines))
    for name in shared:
        own = f"_{module.name.rpartition('.')[2]}{name}"
        text = re.sub(rf"(?<![\w.]){name}\b", own, text)
    return f"\n\n# ---- {module.name.replace('.', '/')}.py ----\n\n{text.strip()}\n"


def _for_types_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
