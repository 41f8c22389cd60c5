"""Check command lines of the documentation that are not executed: parse them and look names up."""

import importlib
import importlib.metadata
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable
from typing import Any
from unittest import mock

from experiments.cli import main as cli
from experiments.options import arguments, mistakes, vocabulary
from experiments.options.errors import UsageError
from profiling import runner, targets
from tests.paths import ROOT
from w2v_jax.errors import UserError

# Programs for another machine, or of another package: nothing here knows their options.
ELSEWHERE = ("scp", "sudo", "echo", "vcgencmd", "tensorboard", "flower-superlink", "flower-supernode", "flwr")


class LineError(Exception):
    """A command line that the project does not know."""


class _Parsed(Exception):
    def __init__(self, kind: type, options: Any):
        super().__init__()
        self.kind, self.options = kind, options


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split the words that follow `w2v-jax` into (name of a command, its arguments).

    Raises:
        LineError: no such command.
    """
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in cli.COMMANDS:
            return name, words[length:]
    raise LineError(f"no such command: w2v-jax {shlex.join(words)}")


def parse(words: list[str]) -> Any:
    """Parse a line with the command's own parser and apply the command's own checks; nothing is run.

    The checks are the module's `resolve` or `check`, which look for values that exclude one another or are
    out of range. A command that only lists something (`--help`, `--list`) is run.

    Raises:
        LineError: an option that does not exist, or a value that is refused.
    """
    name, argv = split_command(words)
    module = importlib.import_module(cli.COMMANDS[name][0])

    def stop(kind: type, argv: list[str], program: str) -> Any:
        raise _Parsed(kind, original(kind, argv, program))

    original: Callable = arguments.parse
    with mock.patch.object(arguments, "parse", stop):
        try:
            module.main(argv)
        except _Parsed as found:
            parsed = found
        except SystemExit as ended:
            if ended.code:
                raise LineError(f"w2v-jax {shlex.join(words)}: status {ended.code}") from ended
            return None
        except (UsageError, UserError) as error:
            raise LineError(f"w2v-jax {shlex.join(words)}: {error}") from error
        else:
            return None
    for check in ("resolve", "check", "_check"):
        function = getattr(module, check, None)
        if function is not None and len(inspect.signature(function).parameters) == 1:
            try:
                with mock.patch.object(targets, "missing", return_value=None):  # compilers need not be here
                    function(parsed.options)
            except (UsageError, UserError) as error:
                raise LineError(f"w2v-jax {shlex.join(words)}: {error}") from error
    return parsed.options


def options_of(name: str) -> set[str]:
    """Return a command's options, with their dashes."""
    module = importlib.import_module(cli.COMMANDS[name][0])

    def stop(kind: type, argv: list[str], program: str) -> Any:
        raise _Parsed(kind, None)

    with mock.patch.object(arguments, "parse", stop):
        try:
            module.main([])
        except _Parsed as found:
            names = {option.name for option in mistakes.options_of(found.kind)}
            return names | {old for old, new in vocabulary.RENAMED.items() if new in names}
    raise LineError(f"w2v-jax {name} has no parser")


def check_span(text: str) -> bool:
    """Check a code span if it is a command or the beginning of one, and return whether it is.

    `w2v-jax NAME` must exist; with further words it is parsed as a line, where `--out` may be missing. In
    `NAME --option`, without `w2v-jax` and perhaps without a value, the options must exist.

    Raises:
        LineError: nobody could type this command.
    """
    words = shlex.split(text.replace("'", "")) if text.count('"') % 2 == 0 else text.split()
    words = words[1:] if words[:1] == ["srun"] else words
    if words[:1] == ["w2v-jax"] and len(words) > 1:
        name, rest = split_command(words[1:])
        if rest:  # else the command's name
            folder = [] if "--out" in rest or "--out" not in options_of(name) else ["--out", "folder"]
            parse(words[1:] + folder)
        return True
    try:
        name, rest = split_command(words)
    except LineError:
        return False
    wanted = {re.split("[=|]", word)[0] for word in rest if word.startswith("--")}
    if unknown := wanted - options_of(name) - set(mistakes.HELP):
        raise LineError(f"{text}: {name} has no {', '.join(sorted(unknown))}")
    return bool(wanted)


def make_targets() -> set[str]:
    """Return the targets that `make help` lists."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))


def extras_of(package: str) -> set[str]:
    """Return the extras of this project, or of an installed package."""
    if package == "w2v-jax":
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return set(project["optional-dependencies"])
    return set(importlib.metadata.metadata(package).get_all("Provides-Extra") or [])


def check_line(line: str) -> None:
    """Check that what a line of an `sh` block would install, make or start exists.

    Raises:
        LineError: it does not.
    """
    words = shlex.split(line, comments=True)
    while words and (words[0] in ("srun", "|") or re.fullmatch(r"[A-Z_]+=\S*", words[0])):
        words = words[1:]
        while words and words[0].startswith("-"):
            words = words[1:]
    if words[:1] == ["w2v-jax"]:
        parse(words[1:])
    elif words[:1] == ["make"]:
        wanted = {word for word in words[1:] if "=" not in word}
        if unknown := wanted - make_targets():
            raise LineError(f"{line}: the Makefile has no target {', '.join(sorted(unknown))}")
    elif words[:2] == ["pip", "install"] or words[1:4] == ["-m", "pip", "install"]:
        for package, listed in re.findall(r"([\w-]+)\[([\w,-]+)\]", " ".join(words)):
            if unknown := set(listed.split(",")) - extras_of(package):
                raise LineError(f"{line}: {package} has no extra {', '.join(sorted(unknown))}")
    elif words[:1] == ["python"] and words[1].endswith("runner.py"):
        try:
            runner._parse(words[2:])
        except SystemExit as error:
            raise LineError(f"{line}: not what runner.py takes") from error
    elif words == [".", ".venv/bin/activate"]:
        if not re.search(r"^VENV := \.venv$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE):
            raise LineError(f"{line}: make puts its environment elsewhere")
    elif words[:1] == ["cd"] and words[1:] == ["w2v-jax"]:
        pass
    elif words[0] not in ELSEWHERE:
        raise LineError(f"{line}: nothing says whether it is right")
