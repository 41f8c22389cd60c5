"""The shape of the product's code: no import circles, folders and files of a readable size."""

import ast
import graphlib
import re
from pathlib import Path

import grimp
import pytest

from tests.paths import ROOT

PACKAGES = ("w2v_jax", "fed", "profiling", "experiments")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOLDERS = sorted({path.parent for path in FILES})


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def definitions(*kinds: type) -> dict[str, int]:
    """Lines of every definition of these kinds, decorators apart, by where it stands."""
    return {
        f"{path.relative_to(ROOT)}:{node.name}": node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, kinds)
    }


def over(limit: int, sizes: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in sizes.items() if size > limit}


def test_no_import_circles_lazy_imports_included():
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    graphlib.TopologicalSorter(
        {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    ).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_folder_holds_more_than_21_files(folder):
    assert len(list(folder.glob("*.py"))) <= 21


def test_files_are_short():
    assert len(over(300, {str(path.relative_to(ROOT)): lines_of(path) for path in FILES})) <= 8


def test_functions_are_short():
    assert len(over(60, definitions(ast.FunctionDef, ast.AsyncFunctionDef))) <= 12


def test_classes_are_short():
    assert not over(180, definitions(ast.ClassDef))


def test_docstrings_begin_with_a_verb_or_a_noun():
    fragment = re.compile(r"(Of|As|What|Who|Those|By|With|That|How|Whether|Where)\b")
    found = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'name', 'module')}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
        and fragment.match(ast.get_docstring(node) or "")
    ]
    assert found == []
