"""Writes docs/api.md from signatures and docstrings: `python -m tests.docs.api_reference`.

Sources are read, not imported, so that annotations stand there as they are written.
"""

import ast
from pathlib import Path

from tests.docs.api_names import TASKS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "api.md"
MAX_FIELDS = 14  # of a class: more are in its source
Definition = ast.FunctionDef | ast.ClassDef

HEADER = """# API reference

What a user calls, by task, with the beginning of each docstring. Shapes, units, errors and sources are
in the docstrings, `help(fed.simulation.run)` for example, and in the linked files.

`python -m tests.docs.api_reference` writes this file: change `tests/docs/api_names.py` or the docstrings.
"""


def path_of(module: str) -> Path:
    """A module's file."""
    return ROOT / Path(*module.split(".")).with_suffix(".py")


def definitions(module: str) -> dict[str, Definition]:
    """The functions and classes of a module's top level, by name."""
    tree = ast.parse(path_of(module).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def summary(node: Definition) -> str:
    """The first paragraph of a docstring, on one line; empty where there is none."""
    first = (ast.get_docstring(node) or "").split("\n\n")[0]
    return " ".join(first.split())


def signature(node: Definition) -> str:
    """`name(arguments) -> result` as written, or a class's `name(fields)`."""
    if isinstance(node, ast.FunctionDef):
        returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"{node.name}({_arguments(node.args)}){returns}"
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            return f"{node.name}({_arguments(member.args)})"
    fields = [_field(member) for member in node.body if isinstance(member, ast.AnnAssign)]
    if len(fields) > MAX_FIELDS:
        return f"{node.name}(...)"
    return f"{node.name}({', '.join(fields)})" if fields else node.name


def _arguments(arguments: ast.arguments) -> str:
    return ast.unparse(arguments).removeprefix("self").removeprefix(", ")


def _field(member: ast.AnnAssign) -> str:
    value = f" = {ast.unparse(member.value)}" if member.value else ""
    return f"{ast.unparse(member.target)}: {ast.unparse(member.annotation)}{value}"


def methods(node: Definition) -> list[ast.FunctionDef]:
    """A class's public methods and properties that have a docstring."""
    return [
        member
        for member in node.body
        if isinstance(node, ast.ClassDef)
        and isinstance(member, ast.FunctionDef)
        and not member.name.startswith("_")
        and ast.get_docstring(member)
    ]


def _member(method: ast.FunctionDef) -> str:
    """A method's signature; a property's name and type."""
    if any(ast.unparse(decorator) == "property" for decorator in method.decorator_list):
        return f"{method.name}: {ast.unparse(method.returns)}" if method.returns else method.name
    return signature(method)


def listed() -> list[tuple[str, str, Definition]]:
    """(module, name, definition) of everything in the reference.

    Raises:
        ValueError: a name that its module does not define.
    """
    found = []
    for _, _, modules in TASKS:
        for module, names in modules.items():
            there = definitions(module)
            for name in names.split():
                if name not in there:
                    raise ValueError(f"tests/docs/api_names.py lists {name}, which {module} does not define")
                found.append((module, name, there[name]))
    return found


def render() -> str:
    """The text of docs/api.md."""
    held = {(module, name): node for module, name, node in listed()}
    lines = [HEADER]
    for task, about, modules in TASKS:
        lines += [f"## {task}", ""]
        lines += [about, ""] if about else []
        for module, names in modules.items():
            lines += [f"### [{module}](../{path_of(module).relative_to(ROOT)})", ""]
            for name in names.split():
                node = held[module, name]
                lines.append(f"- `{signature(node)}`: {summary(node)}")
                lines += [f"  - `.{_member(method)}`: {summary(method)}" for method in methods(node)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
    print(f"written: {DOCUMENT}")
