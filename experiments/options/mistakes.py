"""Explain a command line that did not parse: name the option at fault and what would be right.

tyro decides what parses. Its own messages are long, and describe a typing mistake by Python's types.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.options.spelling import closest, nearest, option_name

HELP = ("--help", "--help-all")
NUMBERS = {int: "a whole number", float: "a number"}


class Option(NamedTuple):
    """An option, or a positional argument, as its dataclass declares it.

    Attributes:
        name: name on the command line, as --learning-rate; FILES for a positional argument.
        field: name of the dataclass's field.
        leaf: type of one value; bool for a flag.
        many: whether it takes several values.
        count: how many values it takes; 0 for any number.
        may_be_none: whether it also takes the word None.
        default: value where it is left out; dataclasses.MISSING where it must be given.
    """

    name: str
    field: str
    leaf: Any
    many: bool
    count: int
    may_be_none: bool
    default: Any

    @property
    def required(self) -> bool:
        """Tell whether it has no default."""
        return self.default is dataclasses.MISSING

    @property
    def positional(self) -> bool:
        """Tell whether its place names it."""
        return not self.name.startswith("-")

    @property
    def wants(self) -> str:
        """Describe the values that it takes."""
        if choices := typing.get_args(self.leaf):
            return f"one of {', '.join(choices)}"
        return {**NUMBERS, Path: "a path"}.get(self.leaf, "one or more" if self.many else "one")

    def refuses(self, word: str) -> str | None:
        """Explain why a word cannot be its value; None if it can."""
        if self.may_be_none and word == "None":
            return None
        if choices := typing.get_args(self.leaf):
            return None if word in choices else nearest(word, choices, self.name)
        try:
            if self.leaf in NUMBERS:
                self.leaf(word)
        except ValueError:
            return f"{self.name} takes {self.wants}, got '{word}'"
        return None


def options_of(kind: Any) -> list[Option]:
    """List the options that a dataclass declares."""
    import tyro

    found, hints = [], typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        positional = typing.get_origin(hint) is typing.Annotated and tyro.conf.Positional in hint.__metadata__
        if typing.get_origin(hint) is typing.Annotated:
            hint = typing.get_args(hint)[0]
        inner = [part for part in typing.get_args(hint) if part is not types.NoneType]
        may_be_none = typing.get_origin(hint) in (types.UnionType, typing.Union)
        if may_be_none:
            hint = inner[0]
        many, made = typing.get_origin(hint) is tuple, field.default_factory
        found.append(
            Option(
                name=field.name.upper() if positional else option_name(field.name),
                field=field.name,
                leaf=typing.get_args(hint)[0] if many else hint,
                many=many,
                count=len(typing.get_args(hint)) if many and ... not in typing.get_args(hint) else 0,
                may_be_none=may_be_none,
                default=field.default if made is dataclasses.MISSING else made(),
            )
        )
    return found


def explain(kind: Any, argv: Sequence[str], program: str) -> str | None:
    """Explain the first mistake of a command line in one line; None if none is found.

    Args:
        kind: dataclass of the command's options.
        argv: words after the command.
        program: the command, as `w2v-jax pretrain`.
    """
    options = options_of(kind)
    places = [option for option in options if option.positional]
    given: set[str] = set()
    free: list[str] = []  # words that belong to no option
    for spelling, option, words in _split(argv, options):
        if option is None and spelling:
            names = [name for one in options for name in spellings(one)]
            close = closest(spelling, [*names, *HELP])
            hint = f": did you mean {close}?" if close else ""
            return f"unknown option {spelling}{hint} ({program} --help lists all)"
        if option is None:
            free += words
            continue
        given.add(option.name)
        if option.leaf is bool:
            taken = 0
        else:
            if not words:
                return f"{spelling} needs a value: give {option.wants}"
            taken = len(words) if option.many else 1
        for word in words[:taken]:
            if why := option.refuses(word):
                return why
        if words[taken:] and not places:
            takes = "no value" if option.leaf is bool else "one value"
            return f"{spelling} takes {takes}, got '{' '.join(words)}'"
        free += words[taken:]
    return _misplaced(free, places, options, program) or _missing(kind, options, given, free, program)


def spellings(option: Option) -> tuple[str, ...]:
    """List the words that name an option; a flag has two, and a positional argument none."""
    if option.positional:
        return ()
    return (option.name, f"--no-{option.name[2:]}") if option.leaf is bool else (option.name,)


def _split(argv: Sequence[str], options: list[Option]) -> Iterator[tuple[str, Option | None, list[str]]]:
    """Yield (option as typed, the option or None, words after it), first for the words before all options."""
    named = {spelling: option for option in options for spelling in spellings(option)}
    spelling, words = "", list[str]()
    for word in argv:
        name, equals, value = word.partition("=")
        if re.match(r"--?[A-Za-z]", word) and word.lower() not in ("-inf", "-nan", "-infinity"):
            yield spelling, named.get(spelling.replace("_", "-")), words
            spelling, words = name, [value] if equals else []
        else:
            words.append(word)
    yield spelling, named.get(spelling.replace("_", "-")), words


def _misplaced(free: list[str], places: list[Option], options: list[Option], program: str) -> str | None:
    """Explain words that no option and no place takes."""
    extra = [] if any(place.many for place in places) else free[len(places) :]
    if not extra:
        return None
    bare = f"--{extra[0]}"
    hint = f"did you mean {bare}? " if any(bare in spellings(option) for option in options) else ""
    names = " ".join(place.name for place in places)
    takes = f"takes {names} alone before its options" if names else "takes options alone, as --NAME VALUE"
    return f"unexpected '{extra[0]}': {hint}{program} {takes}"


def _missing(kind: Any, options: list[Option], given: set[str], free: list[str], program: str) -> str | None:
    """Name the required options that are missing, with the command's example."""
    left, absent = len(free), []
    for option in options:
        if option.positional:
            absent += [option.name] * (option.required and not left)
            left = 0 if option.many else max(0, left - 1)
        elif option.required and option.name not in given:
            absent.append(option.name)
    if not absent:
        return None
    example = re.search(rf"example: ({program} .*)", kind.__doc__ or "")
    return f"{' and '.join(absent)} must be given" + (f", as in: {example[1]}" if example else "")
