"""One vocabulary over all commands, and command lines of older versions that still parse."""

import shlex
import typing
from pathlib import Path

import pytest

from experiments.cli import main as cli
from experiments.options import arguments, vocabulary
from experiments.options.mistakes import options_of
from tests.experiments.command_lines import parse_only

KINDS = {name: parse_only(name, [], check=False).kind for name in cli.COMMANDS}
OPTIONS = {name: [one for one in options_of(kind) if not one.positional] for name, kind in KINDS.items()}
# Command lines that the documentation of release d5d66d4 held.
OLD_LINES = Path(__file__).with_name("old_command_lines.txt").read_text(encoding="utf-8").splitlines()
# --seed is a seed and --seeds a number of them. --speaker is a rule, and --speakers a number.
NUMBERS_OF_THINGS = {"--seed", "--speaker"}


def parse(line):
    """A command's name and its parsed options."""
    words = shlex.split(line)
    assert words[0] == "w2v-jax"
    name = next(name for name in (" ".join(words[1:3]), words[1]) if name in KINDS)
    return name, arguments.parse(KINDS[name], words[1 + len(name.split()) :], f"w2v-jax {name}")


def sort_of(option):
    """Number, flag or words: the sort of an option's value."""
    if typing.get_args(option.leaf) or option.leaf in (str, Path):
        return str
    return option.leaf


def test_every_option_has_a_group():
    for name, options in OPTIONS.items():
        for option in options:
            assert vocabulary.group_of(option.name) != vocabulary.OTHER, (
                f"{name}: name the group of {option.name} in experiments/options/vocabulary.py"
            )


def test_no_option_has_two_groups():
    listed = [name for names in vocabulary.GROUPS.values() for name in names.split()]
    assert sorted(listed) == sorted(set(listed))


def test_an_option_takes_the_same_sort_of_value_in_all_commands():
    sorts: dict[str, set] = {}
    for options in OPTIONS.values():
        for option in options:
            sorts.setdefault(option.name, set()).add(sort_of(option))
    assert {name: sort for name, sort in sorts.items() if len(sort) > 1} == {}


def test_one_thing_has_one_name():
    names = {option.name for options in OPTIONS.values() for option in options}
    assert {name for name in names if f"{name}s" in names} <= NUMBERS_OF_THINGS
    assert names & {*vocabulary.RESPELT_FIELDS} == set()
    # One option of a command, and one sort of thing: no command has both spellings of it.
    for options in OPTIONS.values():
        own = {option.name for option in options}
        assert not {old for old, new in vocabulary.RENAMED.items() if {old, new} <= own}


@pytest.mark.parametrize("line", OLD_LINES)
def test_old_command_lines_parse(line):
    parse(line)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pretrain --batch-size 2 --crop-seconds=0.8", "pretrain --batch 2 --seconds=0.8"),
        ("pretrain --batch_size=2", "pretrain --batch 2"),
        (
            "feasibility --out x --devices a40 pi --models base",
            "feasibility --out x --device a40 pi --model base",
        ),
        ("plans --out x --targets cpu", "plans --out x --target cpu"),
        ("plans grid --out x --targets cpu h200", "plans grid --out x --target cpu h200"),
        (
            "bench cohorts --out x --population 50 --cohorts 2 9",
            "bench cohorts --out x --clients 50 --clients-per-round 2 9",
        ),
        ("bench utilisation --out x --dropout", "bench utilisation --out x --keep-dropout"),
        ("export --out x --no-probe", "export --out x --no-check"),
    ],
)
def test_old_spellings_are_taken_with_a_line(capsys, old, new):
    expected = parse(f"w2v-jax {new}")
    assert capsys.readouterr().err == ""
    assert parse(f"w2v-jax {old}") == expected
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 2
    for line in said:
        former, current = line.removeprefix("w2v-jax: ").split("; ")[0].split(" is now ")
        assert former in old.replace("_", "-")
        assert current in new


def test_an_option_that_is_no_old_spelling_stays_as_it_is(capsys):
    _, options = parse("w2v-jax finetune --dropout 0.1")
    assert options.dropout == 0.1
    _, options = parse("w2v-jax pretrain --rounds 2 --batch 3")
    assert (options.rounds, options.batch_size) == (2, 3)
    assert capsys.readouterr().err == ""
