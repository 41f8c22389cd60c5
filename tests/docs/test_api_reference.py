"""docs/reference/api.md agrees with the docstrings, and the docstrings that it lists say enough."""

import ast
import re
import textwrap

import griffe
import pytest

from tests.docs import api_reference

LISTED = [
    (module, name)
    for _, _, modules in api_reference.tasks()
    for module in modules
    for name in modules[module]
]


def functions(node: api_reference.Listed) -> list[griffe.Function]:
    """Return a function, or a class's public methods with __init__ and __call__ as far as it writes them."""
    if isinstance(node, griffe.Function):
        return [node]
    return [
        member
        for member in node.members.values()
        if re.match(r"[a-z]|__(init|call)__$", member.name) and member.is_function and member.lineno
    ]


def raised(node: ast.AST) -> set[str]:
    """Return the error classes that a function raises itself, inner functions left out."""
    found = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Raise) and child.exc is not None:
            error = child.exc.func if isinstance(child.exc, ast.Call) else child.exc
            found.add(ast.unparse(error).split(".")[-1])
        found |= raised(child)
    return {name for name in found if name[0].isupper()}


def raised_in(source: str) -> set[str]:
    return raised(ast.parse(textwrap.dedent(source)).body[0])


def told_arguments(docstring: str) -> set[str]:
    """Return the names under `Args:`."""
    sections = griffe.Docstring(docstring).parse("google", warnings=False)
    told = [part for part in sections if part.kind is griffe.DocstringSectionKind.parameters]
    return {name for part in told for argument in part.value for name in re.split(r", *", argument.name)}


def test_the_file_is_up_to_date():
    assert api_reference.DOCUMENT.read_text(encoding="utf-8") == api_reference.render(), (
        "run python -m tests.docs.api_reference"
    )


def test_all_is_listed_once():
    assert len(LISTED) == len(set(LISTED)) > 150
    assert {module.split(".")[0] for module, _ in LISTED} == {"w2v_jax", "fed", "profiling"}


@pytest.mark.parametrize(("module", "name"), LISTED, ids=map(".".join, LISTED))
def test_docstrings_say_enough(module, name):
    node = api_reference.find(module, name)
    own = node.docstring.value if node.docstring else ""
    assert api_reference.summary(node).endswith((".", ":")), f"{name} has no docstring with a sentence"
    for function in functions(node):
        docstring = function.docstring.value if function.docstring else ""
        both = f"{own}\n{docstring}"
        arguments = {parameter.name.lstrip("*") for parameter in function.parameters} - {"self", "cls"}
        for error in raised_in(function.source):
            assert error in both, f"{name}: {function.name} raises {error} and does not say so"
        if stale := told_arguments(docstring) - arguments:
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
    assert raised_in(text) == {"UserError"}
    assert told_arguments(ast.get_docstring(ast.parse(textwrap.dedent(text)).body[0])) == {
        "first", "second", "forth",
    }  # fmt: skip


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"lists nobody, which fed\.sampling does not define"):
        api_reference.find("fed.sampling", "nobody")
