"""Write docs/reference/api.md from signatures and docstrings: `python -m tests.docs.api_reference`.

griffe reads the sources without importing them.
"""

import functools

import griffe

from tests.paths import ROOT

DOCUMENT = ROOT / "docs" / "reference" / "api.md"
NAMES = ROOT / "tests" / "docs" / "api_names.txt"
MAX_FIELDS = 14  # longer lists of a class's fields are left to its source
Listed = griffe.Class | griffe.Function

HEADER = """# API reference

This page lists what a user calls, by task, with the first sentences of each docstring. Types, shapes, units
and errors are in the docstrings (for example `help(fed.simulation.run)`) and in the linked files.

`python -m tests.docs.api_reference` writes this page: change `tests/docs/api_names.txt` or the docstrings.
"""


@functools.cache
def packages() -> dict[str, griffe.Module]:
    """Read the three packages' sources."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False, docstring_parser="google")
    return {name: loader.load(name) for name in ("w2v_jax", "fed", "profiling")}


def find(module: str, name: str) -> Listed:
    """Return the definition of a module's function or class.

    Raises:
        ValueError: the module does not define it.
    """
    package, *rest = [*module.split("."), name]
    try:
        found = packages()[package][".".join(rest)]
    except KeyError:
        found = None
    if not isinstance(found, Listed):
        raise ValueError(f"tests/docs/api_names.txt lists {name}, which {module} does not define")
    return found


def summary(node: griffe.Object) -> str:
    """Return a docstring's first paragraph on one line; empty if there is none."""
    text = node.docstring.value if node.docstring else ""
    return " ".join(text.split("\n\n")[0].split())


def signature(node: Listed) -> str:
    """Return `name(arguments) -> result` or a class's `name(fields)`, without the types of arguments."""
    for parameter in node.parameters:
        parameter.annotation = None
    fields = [field for field in node.attributes.values() if "property" not in field.labels]
    if len(fields) > MAX_FIELDS:
        return f"{node.name}(...)"
    if isinstance(node, griffe.Function) or "__init__" in node.members:
        return node.signature()
    told = (f"{field.name} = {field.value}" if field.value else field.name for field in fields)
    return f"{node.name}({', '.join(told)})" if fields else node.name


def methods(node: Listed) -> list[tuple[str, griffe.Object]]:
    """Return (signature, definition) of a class's public methods and properties that have a docstring."""
    return [
        (signature(member) if member.is_function else f"{member.name}: {member.annotation}", member)
        for member in node.members.values()
        if isinstance(node, griffe.Class)
        and not member.name.startswith("_")
        and member.docstring
        and (member.is_function or "property" in member.labels)
    ]


def tasks() -> list[tuple[str, str, dict[str, list[str]]]]:
    """Return (task, a sentence about it, names by module) of everything in the reference, in order."""
    found: list[tuple[str, str, dict[str, list[str]]]] = []
    for line in NAMES.read_text(encoding="utf-8").splitlines()[1:]:
        title, _, rest = line.removeprefix("# ").partition(":")
        if line.startswith("# "):
            found.append((title, rest.strip(), {}))
        elif line:
            found[-1][2][title] = rest.split()
    return found


def render() -> str:
    """Return the text of docs/reference/api.md."""
    lines = [HEADER]
    for task, about, modules in tasks():
        lines += [f"## {task}", ""]
        lines += [about, ""] if about else []
        for module, names in modules.items():
            path = module.replace(".", "/")
            path += "/__init__.py" if (ROOT / path).is_dir() else ".py"
            lines += [f"### [{module}](../../{path})", ""]
            for name in names:
                node = find(module, name)
                lines.append(f"- `{signature(node)}`: {summary(node)}")
                lines += [f"  - `.{told}`: {summary(member)}" for told, member in methods(node)]
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
    print(f"written: {DOCUMENT}")
