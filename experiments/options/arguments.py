"""Parse command lines with tyro; a mistake becomes one line with exit status 2."""

import contextlib
import io
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments.options.errors import UsageError
from experiments.options.help import help_text
from experiments.options.mistakes import HELP, explain, options_of, spellings
from experiments.options.spelling import NAMES, dashed, nearest, option_name
from experiments.options.vocabulary import old_spellings, respell
from w2v_jax.errors import UserError

Arguments = TypeVar("Arguments")


def parse(kind: type[Arguments], argv: Sequence[str], program: str) -> Arguments:
    """Parse `argv` into a dataclass; `--help` and `--help-all` print and exit 0.

    Old spellings of options are taken, with a line on standard error for each.

    Raises:
        UsageError: an option is unknown or a value is bad; the message names it and the nearest right one.
    """
    import tyro

    options = options_of(kind)
    if asked := {"-h", *HELP} & set(argv):
        print(help_text(kind, program, everything=HELP[1] in asked), flush=True)
        raise SystemExit(0)
    old = old_spellings(argv, [name for option in options for name in spellings(option)])
    for word, new in old.items():
        print(f"w2v-jax: {word} is now {new}; the old spelling still works", file=sys.stderr)
    argv = respell(argv, old)
    fields = {option.name: dashed(option.field) for option in options if option.field in NAMES}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parsed = tyro.cli(kind, args=respell(argv, fields), prog=program, use_underscores=False)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(explain(kind, argv, program) or one_line(printed.getvalue())) from None
    # tyro gives an empty tuple for an option without values and for one that was left out.
    empty = [name for name, value in vars(parsed).items() if value == ()]
    if any(option_name(name) in argv or name not in vars(kind) for name in empty):
        raise UsageError(explain(kind, argv, program))
    return parsed


def one_line(boxed: str) -> str:
    """Join the words of a boxed message, up to its help footer, into one line."""
    words: list[str] = []
    for line in boxed.splitlines()[1:]:
        text = line.strip("╭╮╰╯│─ ")
        if text.startswith(("For full helptext", "Argument helptext")):
            break
        words.append(text if text.strip("-") else "")  # rules are dashes where the output is ASCII
    return " ".join(" ".join(words).split()) or "bad command line"


def complain(message: str) -> None:
    """Print one line to standard error."""
    print(f"w2v-jax: error: {' '.join(message.split())}", file=sys.stderr)


def option_of(path: str, argv: Sequence[str]) -> str | None:
    """Find the option whose value is the path or a folder above it."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for option, value in itertools.pairwise(words):
        there = Path(value).absolute()
        if option.startswith("--") and there in (Path(path).absolute(), *Path(path).absolute().parents):
            return option
    return None


def check_choice(option: str, word: str, choices: Iterable[str]) -> None:
    """Check that an option's value is one of its choices.

    Raises:
        UsageError: it is not; the message names the option and the nearest choice.
    """
    if word not in (choices := list(choices)):
        raise UsageError(nearest(word, choices, option))


def check_at_least(least: int, options: Any, *fields: str) -> None:
    """Check that no number is below `least`; a field holds a number, a tuple of them or None.

    Raises:
        UsageError: a number is below; the message names its option.
    """
    for field in fields:
        value = getattr(options, field)
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not number >= least:
                raise UsageError(f"{option_name(field)} must be at least {least}, got {number}")


def check_exists(option: str, path: Path, expected: str) -> None:
    """Check that the file or folder exists that an option names.

    Raises:
        UsageError: it does not.
    """
    if not path.exists():
        raise UsageError(f"{option}: no such file or folder: {path} (expected {expected})")


@contextlib.contextmanager
def blaming(option: str) -> Iterator[None]:
    """Put an option's name before the message of an error that its value causes within.

    Raises:
        UserError: the same error with the longer message.
    """
    try:
        yield
    except UserError as error:
        raise type(error)(f"{option}: {error}") from error
