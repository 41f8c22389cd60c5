"""Every mistake on every command's line is named with its option, and the nearest right spelling."""

import typing

import pytest

from experiments.cli import main as cli
from experiments.options import arguments, mistakes
from experiments.options.errors import UsageError
from tests.experiments.cli.test_commands import fails
from tests.experiments.command_lines import parse_only

KINDS = {name: parse_only(name, [], check=False).kind for name in cli.COMMANDS}
OPTIONS = {name: mistakes.options_of(kind) for name, kind in KINDS.items()}
NAMES = sorted(KINDS)


def said(name, *words):
    """What a command's parser says of bad words: one line."""
    with pytest.raises(UsageError) as error:
        arguments.parse(KINDS[name], words, f"w2v-jax {name}")
    line = str(error.value)
    assert "\n" not in line
    assert "──" not in line  # no box of tyro's
    assert "----" not in line
    return line


def misspelt(word):
    """The word with its last letter but one twice."""
    return word[:-1] + word[-2:]


@pytest.mark.parametrize("name", NAMES)
def test_misspelt_options(name):
    for option in OPTIONS[name]:
        if not option.positional:
            line = said(name, misspelt(option.name), "1")
            expected = f"unknown option {misspelt(option.name)}: did you mean {option.name}? "
            assert line == f"{expected}(w2v-jax {name} --help lists all)"
    assert said(name, "--zzzz") == f"unknown option --zzzz (w2v-jax {name} --help lists all)"


@pytest.mark.parametrize("name", NAMES)
def test_misspelt_and_missing_values(name):
    for option in OPTIONS[name]:
        if option.positional or option.leaf is bool:
            continue
        assert said(name, option.name).startswith(f"{option.name} needs a value: give ")
        for choice in typing.get_args(option.leaf):
            for words in ([option.name, misspelt(choice)], [f"{option.name}={misspelt(choice)}"]):
                expected = f"unknown {option.name} '{misspelt(choice)}': did you mean {choice}? (choose from"
                assert said(name, *words).startswith(expected)
        if option.leaf in (int, float):
            kind = "a whole number" if option.leaf is int else "a number"
            assert said(name, option.name, "ten") == f"{option.name} takes {kind}, got 'ten'"


@pytest.mark.parametrize("name", NAMES)
def test_missing_options_and_words_too_many(name):
    required = [option.name for option in OPTIONS[name] if option.required]
    if required:
        line = said(name)
        assert line.startswith(f"{' and '.join(required)} must be given, as in: w2v-jax {name} ")
    places = [option for option in OPTIONS[name] if option.positional]
    if not any(place.many for place in places):
        assert said(name, *(["there"] * len(places)), "surplus").startswith("unexpected 'surplus': ")
    for option in OPTIONS[name]:
        if not places and not option.positional and not option.many:
            takes = "no value" if option.leaf is bool else "one value"
            values = ["surplus"] if option.leaf is bool else [_right(option), "surplus"]
            assert said(name, option.name, *values).startswith(f"{option.name} takes {takes}, got ")


def _right(option):
    return next(iter(typing.get_args(option.leaf)), "1")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pretrain --model bse", "unknown --model 'bse': did you mean base?"),
        ("pretrain --model Tiny", "unknown --model 'Tiny': did you mean tiny?"),
        ("pretrain --preset centralized", "unknown --preset 'centralized': did you mean centralised?"),
        ("pretrain --method exct", "--method: unknown method 'exct': did you mean exact?"),
        ("pretrain --memory-budget 4QB", "--memory-budget takes a size such as 4GB"),
        ("pretrain --split tset --data {corpus}", "unknown --split 'tset': did you mean test?"),
        ("pretrain model tiny", "unexpected 'model': did you mean --model?"),
        ("pretrain -model tiny", "unknown option -model: did you mean --model?"),
        ("pretrain --agg uniform", "unknown option --agg: did you mean --aggregation?"),
        ("finetune --model lrge", "unknown --model 'lrge': did you mean large?"),
        ("profile --device orin", "unknown --device 'orin': did you mean orin-nx?"),
        ("profile --target xavier", "unknown --target 'xavier': did you mean xavier-nx?"),
        ("profile --method exct", "--method: unknown method 'exct': did you mean exact?"),
        ("export --out x --method remt", "--method: unknown method 'remt': did you mean remat?"),
        ("plans --out x --model bse", "unknown --model 'bse': did you mean base?"),
        ("plans --out x --target orin", "unknown --target 'orin': did you mean orin-nx?"),
        ("plans grid --out x --target cpuu", "unknown --target 'cpuu': did you mean cpu?"),
        ("feasibility --out x --device xavier", "unknown --device 'xavier': did you mean xavier-nx?"),
        ("feasibility --out x --fleet rpi4=2", "unknown --fleet 'rpi4': did you mean rpi-4?"),
        ("feasibility --out x --link ltr", "unknown --link 'ltr': did you mean lte?"),
        ("feasibility --out x --method exct", "unknown --method 'exct': did you mean exact?"),
        ("reproduce section41 --out x --device xavier", "unknown --device 'xavier': did you mean xavier-nx?"),
        ("reproduce all --items tabel1", "unknown --items 'tabel1': did you mean table1?"),
        ("bench rounds --out x --runners our", "unknown --runners 'our': did you mean ours?"),
        ("bench utilisation --out x --model bse", "unknown --model 'bse': did you mean base?"),
        ("bench cohorts --out x --model bse", "unknown --model 'bse': did you mean base?"),
        ("bench compile --out x --model bse", "unknown --model 'bse': did you mean base?"),
        ("data synth --out x --speakers 2", "--speakers must be at least 3, got 2"),
        ("data synth --out x --words 100000", "--words must be at most 10000, got 100000"),
        ("data synth --out x --seed -1", "--seed must be at least 0, got -1"),
        ("bench memory --model bse", "unknown --model 'bse': did you mean base?"),
        ("bench memory --method plain exct", "--method: unknown method 'exct': did you mean exact?"),
    ],
)
def test_values_that_cannot_be(capfd, tmp_path, monkeypatch, line, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "validated.tsv").touch()
    (tmp_path / "test.tsv").touch()
    found = fails(capfd, *line.format(corpus=tmp_path).split())
    assert found.startswith(f"w2v-jax: error: {expected}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pretrain --data nowhere", "--data: no such folder: nowhere"),
        ("pretrain --init nowhere", "--init nowhere: no such pre-training run"),
        ("pretrain --init hf:nowhere", "--init: no such folder: nowhere"),
        ("finetune --data nowhere", "--data: no such folder: nowhere"),
        ("finetune --init nowhere", "--init nowhere: no such pre-training run"),
        ("finetune --init hf:nowhere", "--init: no such folder: nowhere"),
        ("transcribe a.wav --run nowhere", "--run nowhere is not a run folder"),
        ("transcribe --run nowhere", "FILES must be given, as in: w2v-jax transcribe"),
        ("convert nowhere --out x", "SOURCE: no such file or folder: nowhere"),
        ("convert nowhere@3 --out x", "SOURCE: no such file or folder: nowhere@3"),
        ("convert . --out x", ".: no such pre-training run"),
        ("compare nowhere --out x", "RUNS: nowhere is not a run folder"),
        ("compare --out x", "RUNS must be given, as in: w2v-jax compare"),
        ("watch", "RUNS must be given, as in: w2v-jax watch"),
        ("doctor", "RUN must be given, as in: w2v-jax doctor"),
        ("doctor nowhere", "RUN: no such file or folder: nowhere"),
        ("data describe nowhere", "DATA: no such folder: nowhere"),
        ("data prepare --source nowhere --out x", "--source: no such file or folder: nowhere"),
        ("feasibility --out x --timings nowhere", "--timings: cannot read nowhere"),
        ("reproduce table2 --out x --timings nowhere", "--timings: cannot read nowhere"),
        ("reproduce section41 --out x --timings nowhere", "--timings: cannot read nowhere"),
        ("reproduce fig1 --data nowhere", "--data: no such folder: nowhere"),
        ("reproduce fig5 --data nowhere", "--data: no such folder: nowhere"),
        ("study length --data nowhere", "--data: no such folder: nowhere"),
        ("study mechanism --data nowhere", "--data: no such folder: nowhere"),
        ("data synth --out file", "--out: "),
        ("reproduce fig3 --out=file/x", "--out: "),
    ],
)
def test_paths_that_are_not_there(capfd, tmp_path, monkeypatch, line, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert fails(capfd, *line.split()).startswith(f"w2v-jax: error: {expected}")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pretrian --model tiny", "unknown command 'pretrian': did you mean pretrain?"),
        ("reprduce fig5", "unknown command 'reprduce': did you mean reproduce fig5?"),
        ("fig5 --data x", "unknown command 'fig5': did you mean reproduce fig5?"),
        ("reproduce fig9", "unknown command 'reproduce fig9': did you mean reproduce fig"),
        ("reproduce --data x", "--data comes after a command: choose from reproduce "),
        ("plans gird --out x", "unknown command 'plans gird': did you mean plans grid?"),
        ("zzzz", "unknown command 'zzzz' (w2v-jax --help lists all)"),
    ],
)
def test_misspelt_commands(capfd, line, expected):
    assert fails(capfd, *line.split()).startswith(f"w2v-jax: error: {expected}")


def test_the_option_of_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "corpora", "--out=runs/first", "--seed", "1"]
    assert arguments.option_of("runs/first/config.json", words) == "--out"
    assert arguments.option_of(str(tmp_path / "runs" / "first"), words) == "--out"
    assert arguments.option_of("runs", words) is None
    assert arguments.option_of("runs/firstly", words) is None


def test_what_parses_is_left_to_tyro():
    parsed = arguments.parse(KINDS["pretrain"], ["--dp_clip_norm=1e-3", "--rounds", "2"], "w2v-jax pretrain")
    assert (parsed.dp_clip_norm, parsed.rounds) == (1e-3, 2)
    assert arguments.parse(KINDS["pretrain"], ["--proximal", "-1"], "w2v-jax pretrain").proximal == -1.0
    assert arguments.parse(KINDS["pretrain"], ["--clients", "None"], "w2v-jax pretrain").clients is None


def test_words_of_tyro_where_no_mistake_is_found(monkeypatch):
    monkeypatch.setattr(arguments, "explain", lambda kind, argv, program: None)
    assert said("pretrain", "--rounds", "ten").startswith("Error parsing --rounds: ")
