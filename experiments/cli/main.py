"""The `w2v-jax` command: find the subcommand and run it; bad input gives one line and exit status 2."""

import importlib
import os
import sys
import textwrap
from collections.abc import Sequence
from importlib.metadata import version

from experiments.cli.commands import COMMANDS, RESUMABLE
from experiments.process.huge_pages import start_over_with_huge_pages

WIDTH = 100  # columns


def usage(group: str | None = None) -> str:
    """Make the text of `w2v-jax --help`, or of `w2v-jax GROUP --help`."""
    named = COMMANDS if group is None else {name: COMMANDS[name] for name in in_group(group)}
    width = max(map(len, named)) + 4
    lines = [
        textwrap.fill(summary, WIDTH, initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width)
        for name, (_, summary) in named.items()
    ]
    if group is not None:
        title = f"usage: w2v-jax {group} COMMAND [OPTIONS]"
        return "\n".join(
            [title, "", *lines, "", f"w2v-jax {group} COMMAND --help lists a command's options."]
        )
    return "\n".join(
        [
            "usage: w2v-jax COMMAND [OPTIONS]",
            "",
            "Federated wav2vec 2.0 pre-training in JAX.",
            "",
            *lines,
            "",
            "w2v-jax COMMAND --help lists a command's options, and --help-all explains all of them.",
            "w2v-jax --version prints the version.",
            "example: w2v-jax pretrain --model tiny --preset ten-clients --out runs/first",
        ]
    )


def versions() -> str:
    """Make the text of `w2v-jax --version`, without importing jax."""
    return f"w2v-jax {version('w2v-jax')} (jax {version('jax')})"


def in_group(word: str) -> list[str]:
    """List the commands of two words that begin with this one."""
    return [name for name in COMMANDS if name.startswith(f"{word} ")]


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run a subcommand's `main(argv)`; bad input prints one line and gives exit status 2."""
    from experiments.options.arguments import complain, option_of
    from experiments.options.errors import UsageError
    from fed.protocols import FederationError
    from profiling.targets import TargetError
    from w2v_jax.errors import UserError

    try:
        importlib.import_module(COMMANDS[name][0]).main(list(argv))
    except (UsageError, UserError, FederationError, TargetError) as error:
        complain(str(error))
        return 2
    except BrokenPipeError:
        return unread()
    except OSError as error:
        # A path cannot be read or written; a traceback would say no more than this line.
        what, option = "", None
        if error.filename:
            what, option = f" ({error.filename})", option_of(os.fsdecode(error.filename), argv)
        blamed = f"{option}: " if option else ""
        complain(
            f"{blamed}{error.strerror or error}{what}: check the folder, its permissions and the space left"
        )
        return 2
    except KeyboardInterrupt:
        complain("interrupted" + ("; the same command continues" if name in RESUMABLE else ""))
        return 130
    return 0


def unread() -> int:
    """Return the exit status for output that nobody reads any more, as after `| head`."""
    os.dup2(
        os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
    )  # the interpreter would complain at its end
    return 141  # what a shell reports of a broken pipe


def show(text: str) -> int:
    """Print the whole output of a command and return its exit status."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        return unread()
    return 0


def console() -> int:
    """Entry point of the console script."""
    start_over_with_huge_pages()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names and return its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "--help-all", "help"):
        return show(usage())
    if argv[0] == "--version":
        return show(versions())
    for words in (2, 1):
        name, after = " ".join(argv[:words]), argv[words:]
        second = words == 1 and after and not after[0].startswith("-")  # `plans gird` is no option of `plans`
        if name in COMMANDS and not (second and in_group(name)):
            return run_command(name, after)
    if in_group(argv[0]) and argv[1:2] in ([], ["-h"], ["--help"], ["--help-all"]):
        return show(usage(argv[0]))
    from experiments.options.arguments import complain

    complain(unknown(argv))
    return 2


def unknown(argv: Sequence[str]) -> str:
    """Make the message for words that begin with no command."""
    from experiments.options.spelling import closest, nearest

    word, typed = argv[0], " ".join(argv[:2])
    if (group := in_group(word)) and argv[1].startswith("-"):
        return f"{argv[1]} comes after a command: choose from {', '.join(group)}"
    if group:
        return nearest(typed, [word] * (word in COMMANDS) + group, "command")
    named_so = [name for name in COMMANDS if word in name.split()]
    close = named_so[0] if named_so else closest(typed, COMMANDS) or closest(word, COMMANDS)
    hint = f": did you mean {close}?" if close else ""
    return f"unknown command '{word}'{hint} (w2v-jax --help lists all)"
