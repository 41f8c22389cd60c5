"""Bad input: one clear line, exit status 2, nothing lost."""

import importlib
import subprocess
import sys

import pytest

from experiments.cli import main as cli
from experiments.options.arguments import one_line
from experiments.options.errors import UsageError
from experiments.pretrain.command import PretrainArguments, resolve
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus

TINY_RUN = [
    "--rounds",
    "1",
    "--clients",
    "2",
    "--local-steps",
    "1",
    "--seconds",
    "0.6",
    "--batch",
    "2",
]


def fails(capfd, *argv):
    """Run a command that must fail; returns its one line."""
    assert cli.main(list(argv)) == 2
    out, err = capfd.readouterr()
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("w2v-jax: error: ")
    assert "Traceback" not in out + err
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["pretrian"], "did you mean pretrain?"),
        (["data", "snyth"], "did you mean data synth?"),
        (["pretrain", "--modle", "tiny"], "--model"),
        (["pretrain", "--rounds", "many"], "--rounds"),
        (["pretrain", "--rounds", "0"], "--rounds must be positive"),
        (["pretrain", "--preset", "ten-client"], "did you mean ten-clients?"),
        (["pretrain", "--model", "bse"], "did you mean base?"),
        (["pretrain", "--aggregation", "median"], "fedavg"),
        (["pretrain", "--clients", "3", "--clients-per-round", "5"], "more than the 3 clients"),
        (["pretrain", "--local-steps", "3", "--local-epochs", "1"], "not both"),
        (["pretrain", "--seconds", "0.05"], "give a longer crop"),
        (["pretrain", "--preset", "centralised", "--clients", "3"], "--clients has no meaning"),
        (["pretrain", "--preset", "centralised", "--lanes", "2"], "--lanes has no meaning"),
        (["pretrain", "--temperature", "2"], "--temperature has a meaning with"),
        (["pretrain", "--corruption", "hum"], "quiet"),
        (["pretrain", "--corrupted-clients", "3"], "--corrupted-clients has a meaning with"),
        (["pretrain", "--corruption", "noise", "--corrupted-clients", "11"], "more than the 10 clients"),
        (["pretrain", "--preset", "centralised", "--corruption", "clip"], "--corruption has no meaning"),
        (["pretrain", "--diagnose-every", "0"], "--diagnose-every must be positive"),
        (["pretrain", "--preset", "centralised", "--diagnose-every", "2"], "--diagnose-every has no meaning"),
        (["pretrain", "--seed", "9223372036854775808"], "--seed must be between"),
        (["bench", "clients", "--out", "b", "--lanes", "0"], "--lanes must be at least 1"),
        (["pretrain", "--data", "/no/such/folder"], "no such folder: /no/such/folder"),
    ],
)
def test_mistakes_are_one_line(capfd, tmp_path, monkeypatch, argv, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in fails(capfd, *argv)


def test_folder_without_a_table(capfd, tmp_path):
    assert "no validated.tsv" in fails(
        capfd, "pretrain", "--data", str(tmp_path), "--out", str(tmp_path / "r")
    )


def test_missing_column(capfd, tmp_path):
    (tmp_path / "validated.tsv").write_text("path\tsentence\na.mp3\tb\n")
    line = fails(capfd, "pretrain", "--data", str(tmp_path), "--out", str(tmp_path / "r"))
    assert "missing column client_id" in line


def test_fewer_speakers_than_clients(capfd, tmp_path):
    write_corpus(tmp_path, SyntheticConfig(speakers=4, clips_per_speaker=2, words=10))
    line = fails(capfd, "pretrain", "--data", str(tmp_path), "--clients", "4", "--out", str(tmp_path / "r"))
    assert "4 speakers: too few for 4 clients" in line


def test_too_few_speakers_left_after_skipping(capfd, tmp_path):
    locale = write_corpus(tmp_path, SyntheticConfig(speakers=4, clips_per_speaker=2, words=10))
    for clip in (locale / "clips").glob("synthetic_000[01]_*.flac"):
        clip.write_bytes(b"")
    line = fails(capfd, "pretrain", "--data", str(tmp_path), "--clients", "2", "--out", str(tmp_path / "r"))
    assert "2 speakers: too few for 2 clients" in line
    for clip in (locale / "clips").glob("*.flac"):
        clip.write_bytes(b"")
    line = fails(capfd, "pretrain", "--data", str(tmp_path), "--clients", "2", "--out", str(tmp_path / "r"))
    assert "none of the 8 clips" in line
    assert "8 empty" in line


@pytest.mark.parametrize("content", ["not json", "[]", '{"lr": 1}', '{"settings": 3, "provenance": {}}'])
@pytest.mark.parametrize("command", [["pretrain", "--out"], ["compare", "--out", "compared"]])
def test_a_foreign_config_is_refused(capfd, tmp_path, monkeypatch, content, command):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(content)
    (folder / "untrained.json").write_text("{}")
    assert "not a config.json of a w2v-jax run" in fails(capfd, *command, str(folder))
    assert (folder / "config.json").read_text() == content


def test_an_interrupt_says_whether_the_command_goes_on(capfd, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    for name, expected in (("pretrain", "the same command continues"), ("data describe", "interrupted")):
        monkeypatch.setattr(importlib.import_module(cli.COMMANDS[name][0]), "main", interrupted)
        assert cli.run_command(name, []) == 130
        assert expected in capfd.readouterr().err


def test_a_reader_that_leaves_is_no_error(tmp_path):
    locale = write_corpus(tmp_path, SyntheticConfig(speakers=4, clips_per_speaker=2, words=10))
    code = (
        "import sys; from experiments.data import describe; "
        "describe.print_histogram = lambda bins: [print('x' * 100) for _ in range(10_000)]; "
        "from experiments.cli.main import main; sys.exit(main(['data', 'describe', sys.argv[1]]))"
    )
    argv = [sys.executable, "-c", code, str(locale)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_run_folder_of_another_configuration(capfd, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text('{"settings": {"rounds": 7}, "provenance": {}}')
    line = fails(capfd, "pretrain", "--out", str(folder))
    assert "other settings" in line
    assert (folder / "config.json").read_text() == '{"settings": {"rounds": 7}, "provenance": {}}'


def test_defaults_come_from_preset_and_recipe():
    settings = resolve(PretrainArguments(preset="hundred-clients"))
    assert (settings["clients"], settings["clients_per_round"]) == (100, 20)
    assert resolve(PretrainArguments(local_epochs=2))["local_steps"] is None
    with pytest.raises(UsageError):
        resolve(PretrainArguments(learning_rate=-1.0))


def test_boxes_become_one_line():
    boxed = (
        "╭─ Value error ─╮\n│ first words   │\n│ second words  │\n│ ─────── │\n│ For full helptext │\n╰───╯"
    )
    assert one_line(boxed) == "first words second words"


def test_our_packages_win_from_any_folder(tmp_path):
    # fedjax's wheel leaves an `experiments` folder in site-packages.
    code = (
        "import fed, profiling, w2v_jax\n"
        "from experiments.cli.commands import COMMANDS\n"
        "print(COMMANDS['pretrain'][0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "experiments.pretrain.command", done.stderr
