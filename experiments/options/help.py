"""Write a command's help: its options in groups, at most 100 columns wide.

A dataclass of many options names the ten that matter most in `SHOWN_FIRST`. `--help` explains these and lists
the names of the others; `--help-all` explains all.
"""

import ast
import inspect
import itertools
import re
import textwrap
import typing
from pathlib import Path
from typing import Any

from experiments.options.mistakes import HELP, Option, options_of, spellings
from experiments.options.vocabulary import GROUPS, OTHER, POSITIONAL, group_of

WIDTH, INDENT = 100, 26
VALUES = {int: "INT", float: "NUMBER", Path: "PATH"}


def help_text(kind: Any, program: str, everything: bool = False) -> str:
    """Write the help of a command.

    Args:
        kind: dataclass of the command's options. Its docstring is the description, the string below a field
            explains the option, and `SHOWN_FIRST`, where it has one, names the fields that matter most.
        program: the command, as `w2v-jax pretrain`.
        everything: explain all options.
    """
    options, sentences = options_of(kind), sentences_of(kind)
    first = getattr(kind, "SHOWN_FIRST", None)
    required = [option for option in options if option.positional or option.required]
    hidden = {
        option.name
        for option in options
        if first and not everything and option.field not in first and option not in required
    }
    usage = ["usage:", program, *map(_values, required), "[OPTIONS]"]
    lines = [*_wrapped(" ".join(usage)), ""]
    lines += [line for part in _paragraphs(kind) for line in (*part, "")]
    for group in (POSITIONAL, *GROUPS, OTHER):
        members = [option for option in options if group_of(option.name) == group]
        if not members:
            continue
        lines.append(group)
        for option in members:
            if option.name not in hidden:
                lines += _entry(option, sentences.get(option.field, ""))
        if more := [option.name for option in members if option.name in hidden]:
            lines += _wrapped(", ".join(more), "  also: ", " " * 8)
        lines.append("")
    if hidden:
        return "\n".join([*lines, f"{program} {HELP[1]} explains all {len(options)} options."])
    return "\n".join(lines[:-1])


def sentences_of(kind: Any) -> dict[str, str]:
    """Read the string below each field of a dataclass, with its line breaks as spaces."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(tree.body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def default_sentence(option: Option) -> str:
    """Say what is taken where an option is left out; empty for a flag that is off."""
    if option.required:
        return "" if option.positional else "Required."
    if option.leaf is bool:
        return "Default: yes." if option.default else ""
    values = option.default if isinstance(option.default, tuple) else (option.default,)
    words = [f"{value:.10g}" if isinstance(value, float) else str(value) for value in values]
    return f"Default: {'none' if option.default in (None, ()) else ' '.join(words)}."


def _entry(option: Option, text: str) -> list[str]:
    """Write an option's name, values, explanation and default."""
    if "Default: " not in text:
        text = f"{text} {default_sentence(option)}".strip()
    head = f"  {_values(option)}"
    if len(head) > INDENT - 2:
        return [*_wrapped(head.strip(), "  ", " " * 6), *_wrapped(text, " " * INDENT, " " * INDENT)]
    return _wrapped(text, head.ljust(INDENT), " " * INDENT)


def _values(option: Option) -> str:
    """Spell an option with the kind of values that it takes, as `--rounds INT`."""
    if option.leaf is bool:
        return ", ".join(spellings(option)) if option.default else option.name
    choices = typing.get_args(option.leaf)
    value = "{" + ", ".join(choices) + "}" if choices else VALUES.get(option.leaf, "TEXT")
    if option.positional:
        return f"{option.name} ..." if option.many else option.name
    if option.count:
        return " ".join([option.name, *[value] * option.count])
    return f"{option.name} {value}{' ...' if option.many else ''}"


def _paragraphs(kind: Any) -> list[list[str]]:
    """Wrap the paragraphs of a command's docstring; its example stays one line, to be copied."""
    parts = re.split(r"\n\s*\n", inspect.getdoc(kind) or "")
    return [[part] if part.startswith("example:") else _wrapped(" ".join(part.split())) for part in parts]


def _wrapped(text: str, first: str = "", further: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=further,
        break_long_words=False,
        break_on_hyphens=False,
    )
