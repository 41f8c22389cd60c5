"""Help: soon there, for every command and group, with an example that works."""

import re
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from experiments.cli import main as cli
from experiments.options.help import sentences_of
from experiments.options.mistakes import options_of
from tests.experiments.command_lines import parse_only
from tests.paths import ROOT

GROUPS = sorted({name.split()[0] for name in cli.COMMANDS if " " in name} - set(cli.COMMANDS))
# What takes a second or more to import, and no help needs.
HEAVY = {"jax", "flax", "optax", "matplotlib", "scipy", "fedjax", "grain", "tensorflow_datasets"}


def test_the_list_of_commands_imports_next_to_nothing():
    code = (
        "import sys; from experiments.cli.main import main; main(['--help']); main(['reproduce']); "
        "assert main(['--version']) == 0; "
        f"assert not {HEAVY | {'tyro', 'numpy'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pretrain" in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last == f"w2v-jax {version('w2v-jax')} (jax {version('jax')})"


def test_no_help_imports_what_takes_a_second():
    code = (
        "import contextlib, sys; from experiments.cli.main import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([*name.split(), '--help'])\n"
        f"    found = {HEAVY} & set(sys.modules)\n"
        "    assert not found, (name, found)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["bench"]])
def test_a_reader_that_leaves_a_list_is_no_error(words):
    argv = [sys.executable, "-m", "experiments", *words]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def helped(capsys, name, word):
    """The lines that a command prints for --help or --help-all."""
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), word])
    assert stop.value.code == 0
    return capsys.readouterr().out.splitlines()


def kind_of(name):
    """The dataclass of a command's options."""
    return parse_only(name, [], check=False).kind


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_fits_two_screens_and_names_every_option(name, capsys):
    lines = helped(capsys, name, "--help")
    assert len(lines) <= 100
    assert max(map(len, lines)) <= 100
    assert any(line.startswith(f"example: w2v-jax {name} ") for line in lines)
    words = re.findall(r"[\w-]+", " ".join(lines))
    assert "None" not in words
    assert {option.name for option in options_of(kind_of(name))} <= {*words}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_all_help_explains_every_option_and_says_its_default_once(name, capsys):
    lines, kind = helped(capsys, name, "--help-all"), kind_of(name)
    assert max(map(len, lines)) <= 100
    text, sentences = " ".join(" ".join(lines).split()), sentences_of(kind)
    defaults = 0
    for option in options_of(kind):
        assert sentences[option.field].rstrip(".") in text
        assert "Left out" not in sentences[option.field]
        defaults += not option.required and option.default is not False
    assert text.count("Default: ") == defaults
    assert text.count("Required.") == sum(
        option.required and not option.positional for option in options_of(kind)
    )


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_begins_with_the_ten_options_that_matter(name, capsys):
    kind = kind_of(name)
    options, first = options_of(kind), getattr(kind, "SHOWN_FIRST", None)
    text = "\n".join(helped(capsys, name, "--help"))
    if first is None:
        assert len(options) <= 15, f"name ten options in SHOWN_FIRST of {kind.__name__}"
        assert "--help-all" not in text
        return
    fields = {option.field for option in options}
    assert len(set(first)) == 10
    assert set(first) <= fields
    assert text.endswith(f"w2v-jax {name} --help-all explains all {len(options)} options.")
    explained = re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)
    assert sorted(explained) == sorted(option.name for option in options if option.field in first)


def test_the_lists_of_commands_fit_the_screen_too(capsys):
    for words in ([], ["--help-all"], ["reproduce"]):
        cli.main(words)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 100
        assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_examples_are_right(name):
    # The docstring is what --help prints; there the example is on one line.
    asked = parse_only(name, [], check=False)
    assert asked.program == f"w2v-jax {name}"
    (example,) = re.findall(r"example: (.*)", asked.kind.__doc__)
    words = shlex.split(example)
    assert words[: len(name.split()) + 1] == ["w2v-jax", *name.split()]
    parse_only(name, words[len(name.split()) + 1 :])


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_a_group_lists_its_commands(group, words, capsys):
    assert cli.main([group, *words]) == 0
    out = capsys.readouterr().out
    listed = re.findall(r"^  ([\w-]+ [\w-]+) ", out, re.MULTILINE)
    assert listed == [name for name in cli.COMMANDS if name.split()[0] == group]


def test_a_command_that_is_a_group_too_is_the_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["plans", "--help"])
    assert "example: w2v-jax plans --target" in " ".join(capsys.readouterr().out.split())
