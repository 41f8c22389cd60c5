"""Commands up to where their words are parsed, and no further."""

import importlib
from collections.abc import Sequence
from typing import Any

import pytest

from experiments.cli import main as cli
from experiments.options import arguments


class Parsed(Exception):
    """Raised where a command would begin to work."""

    def __init__(self, kind: Any, program: str):
        super().__init__(program)
        self.kind, self.program = kind, program


def parse_only(name: str, argv: Sequence[str], check: bool = True) -> Parsed:
    """What a command asks its parser for; where `check`, its words go through the parser first.

    Raises:
        UsageError: the parser refuses them.
    """
    parse = arguments.parse

    def stop(kind: Any, words: Sequence[str], program: str) -> Any:
        if check:
            parse(kind, words, program)
        raise Parsed(kind, program)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arguments, "parse", stop)
        with pytest.raises(Parsed) as stopped:
            importlib.import_module(cli.COMMANDS[name][0]).main(list(argv))
    return stopped.value
