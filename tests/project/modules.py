"""The project's modules as trees of their source, and what they import: shared by the tests of its structure."""

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]


def module_name(path: Path) -> str:
    """``cclnet.system.errors`` for its file, ``cclnet`` for that of the package."""
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path for folder in ("cclnet", "stages") for path in sorted((PROJECT / folder).rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a tree but those under ``if TYPE_CHECKING``."""
    yield node
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    for child in ast.iter_child_nodes(node):
        yield from executed(child)


def imports(tree: ast.AST) -> set[str]:
    """The full names of all that a module imports, inside of functions too: of modules and of what is in them."""
    names = set()
    for node in executed(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def project_imports(tree: ast.AST) -> set[str]:
    """The modules of this project that a module imports, with the packages that they are in."""
    found = set()
    for name in imports(tree):
        parts = name.split(".")
        found |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & set(SOURCES)
    return found


def closure(module: str) -> set[str]:
    """A module and all modules of this project that it needs, directly or not."""
    seen, left = set(), {module, module.split(".")[0]}
    while left:
        name = left.pop()
        seen.add(name)
        left |= project_imports(TREES[name]) - seen
    return seen


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """All calls in a tree."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def called(node: ast.Call) -> str:
    """``torch.load`` of ``torch.load(path)``."""
    return ast.unparse(node.func)
