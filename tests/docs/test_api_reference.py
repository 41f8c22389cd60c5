"""docs/api.md is what the docstrings say today, and the docstrings of what it lists say enough."""

import ast
import re

import pytest

from tests.docs import api_reference
from tests.docs.api_reference import Definition

LISTED = api_reference.listed()
IDS = [f"{module}.{name}" for module, name, _ in LISTED]


def functions(node: Definition) -> list[ast.FunctionDef]:
    """A function, or a class's public methods, __init__ and __call__ included."""
    if isinstance(node, ast.FunctionDef):
        return [node]
    return [
        member
        for member in node.body
        if isinstance(member, ast.FunctionDef) and re.match(r"[a-z]|__(init|call)__$", member.name)
    ]


def names_of_arguments(function: ast.FunctionDef) -> list[str]:
    told = function.args
    plain = [*told.posonlyargs, *told.args, *told.kwonlyargs]
    rest = [argument for argument in (told.vararg, told.kwarg) if argument]
    return [argument.arg for argument in [*plain, *rest] if argument.arg != "self"]


def raised(node: ast.AST) -> set[str]:
    """Classes of errors that a function raises itself, functions within it apart."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            found.add(ast.unparse(error).split(".")[-1])
        found |= raised(child)
    return {name for name in found if name[0].isupper()}


def told_arguments(docstring: str) -> list[str]:
    """The names under `Args:`."""
    section = re.search(r"^Args:\n((?:(?:    .*)?\n?)*)", docstring, re.MULTILINE)
    lines = re.findall(r"^    (\w[\w, ]*):", section.group(1), re.MULTILINE) if section else []
    return [name for line in lines for name in re.split(r", *", line)]


def test_the_file_is_up_to_date():
    assert api_reference.DOCUMENT.read_text(encoding="utf-8") == api_reference.render(), (
        "run python -m tests.docs.api_reference"
    )


def test_all_is_listed_once():
    assert len(LISTED) == len({(module, name) for module, name, _ in LISTED}) > 150
    assert {module.split(".")[0] for module, _, _ in LISTED} == {"w2v_jax", "fed", "profiling"}


@pytest.mark.parametrize(("module", "name", "node"), LISTED, ids=IDS)
def test_docstrings_say_enough(module, name, node):
    own = ast.get_docstring(node) or ""
    assert api_reference.summary(node).endswith((".", ":")), f"{name} has no docstring with a sentence"
    for function in functions(node):
        docstring = ast.get_docstring(function) or ""
        both, arguments = f"{own}\n{docstring}", names_of_arguments(function)
        for error in raised(function):
            assert error in both, f"{name}: {function.name} raises {error} and does not say so"
        if stale := set(told_arguments(docstring)) - set(arguments):
            pytest.fail(f"{name}: {function.name} has no {', '.join(sorted(stale))}")
        if len(arguments) > 2:
            assert "Args:" in both or "Attributes:" in both, f"{name}: {function.name} explains no argument"


def test_a_wrong_docstring_is_found():
    text = '''
def fine(first, second, third):
    """Do it.

    Args:
        first, second: units.
        forth: no longer there.
    """
    def within():
        raise KeyError
    if third:
        raise errors.UserError("no")
'''
    (function,) = ast.parse(text).body
    assert raised(function) == {"UserError"}
    assert told_arguments(ast.get_docstring(function)) == ["first", "second", "forth"]
    assert api_reference.signature(function) == "fine(first, second, third)"
