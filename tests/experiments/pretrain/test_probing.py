"""`pretrain --probe-every` and `--keep-best`: a column, and the checkpoint of the best round."""

import jax
import numpy as np
import pytest

from experiments.models import encoders
from experiments.pretrain.best_checkpoint import BestCheckpoint
from experiments.pretrain.options import PretrainArguments
from experiments.pretrain.settings import resolve
from experiments.probe import labelled_clips
from experiments.probe import round_probe as probing
from experiments.probe.judgement import probe_accuracy
from experiments.process.files import read_json
from experiments.runs.best_round import best_line
from experiments.runs.folder import read_metrics
from tests.experiments.cli.test_commands import fails
from tests.experiments.pretrain.test_pretrain import CLIENTS, run_here
from tests.experiments.probe import corpora
from tests.experiments.probe.corpora import said
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.errors import UserError


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    rows = {"train": said("abc"), "dev": said("de"), "test": said("f")}
    return corpora.write(tmp_path_factory.mktemp("words") / "xx", rows)


def test_a_run_probes_its_encoder_and_keeps_the_best_round(words, tmp_path):
    speech = write_corpus(tmp_path, SyntheticConfig(speakers=7, clips_per_speaker=3, words=20, seed=4))
    out = tmp_path / "run"
    options = ["--probe-every", "1", "--probe-data", str(words), "--keep-best", "probe"]
    printed = run_here(speech, out, *CLIENTS, "--rounds", "2", "--keep-checkpoints", "1", *options)
    lines = read_metrics(out / "metrics.jsonl")
    accuracies = [line["probe_accuracy"] for line in lines]
    assert f"probe accuracy {accuracies[0]:.3f}" in printed
    assert "probe: 3 classes of" in printed
    assert "probe_accuracy" in read_json(out / "untrained.json")
    best = 1 + int(accuracies[1] > accuracies[0])
    assert f"The best round by `probe_accuracy` was {best} of 2" in (out / "report.md").read_text()
    source = encoders.load(f"{out}@best", None)
    assert source.description["round"] == best
    assert source.parameters is not None
    # Pre-training begins from the same arrays, quantizer included; a folder may have such a name itself.
    begun = encoders.load_pretraining(f"{out}@best")
    assert begun.description["init"] == f"{out}@best"
    assert begun.parameters is not None
    for name, value in source.parameters.items():
        jax.tree.map(np.testing.assert_array_equal, value, begun.parameters[name])
    assert begun.parameters.keys() - source.parameters.keys()
    settings = resolve(PretrainArguments(init=f"{out}@best"))
    assert (settings["init"], settings["model"]) == (f"{out}@best", "tiny")
    named = out.rename(tmp_path / "other@best")
    assert encoders.load(str(named), None).description["round"] == 2
    labelled = labelled_clips.load(str(words), "keywords", "sentence", min_samples=400, seed=0)
    assert probe_accuracy(source.config, source.parameters, labelled) == pytest.approx(accuracies[best - 1])


def test_the_best_round_is_the_first_of_the_best():
    lines = [
        {"round": 1, "heldout_loss": 3.0},
        {"round": 2},
        {"round": 3, "heldout_loss": 2.0, "probe_accuracy": 0.25},
        {"round": 4, "heldout_loss": float("nan"), "probe_accuracy": 0.25},
        {"round": 5, "heldout_loss": 2.5, "probe_accuracy": None},
    ]
    assert best_line(lines, "heldout_loss") is best_line(lines, "probe") is lines[2]
    assert best_line(lines, "heldout_accuracy") is None


def state(number: int) -> dict[str, np.ndarray]:
    return {"parameters": np.full(3, float(number), np.float32)}


def write_lines(folder, losses):
    lines = [f'{{"round": {index}, "heldout_loss": {loss}}}\n' for index, loss in enumerate(losses, 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))


def test_a_run_that_continues_knows_its_best_round(tmp_path):
    best = BestCheckpoint(tmp_path, "heldout_loss")
    best.resume(None, state(0))
    for index, loss in enumerate([3.0, 2.0, 2.5], 1):
        if best.is_best({"round": index, "heldout_loss": loss}):
            best.save(index, state(index))
    best.close()
    assert sorted(path.name for path in (tmp_path / "best").iterdir() if path.name.isdigit()) == ["2"]

    write_lines(tmp_path, [3.0, 2.0, 2.5])
    again = BestCheckpoint(tmp_path, "heldout_loss")
    again.resume(3, state(3))
    assert not again.is_best({"round": 4, "heldout_loss": 2.0})
    assert again.is_best({"round": 5, "heldout_loss": 1.5})
    again.close()

    # A run that goes on from round 1 comes to round 2 again.
    write_lines(tmp_path, [3.0])
    earlier = BestCheckpoint(tmp_path, "heldout_loss")
    earlier.resume(1, state(1))
    earlier.close()
    assert sorted(path.name for path in (tmp_path / "best").iterdir() if path.name.isdigit()) == ["1"]


def test_few_clips_are_shared_out_among_the_classes(words):
    read = labelled_clips.load(str(words), "keywords", "sentence", min_samples=400, seed=0)
    used = probing.few_clips(read, 6, seed=1)
    assert {split: len(used.of(split)) for split in ("train", "dev", "test")} == {
        "train": 6, "dev": 6, "test": 0,
    }  # fmt: skip
    assert np.bincount(used.labels).tolist() == [4, 4, 4]


def test_a_run_without_a_best_round_says_so(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"settings": {"model": "tiny", "preset": "ten-clients", "model_config": {}}, "provenance": {}}'
    )
    with pytest.raises(UserError, match="keeps no best checkpoint: its pre-training needs --keep-best"):
        encoders.load(f"{tmp_path}@best", None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--probe-every", "2"], "--probe-every and --probe-data need one another"),
        (["--keep-best", "probe"], "--keep-best probe needs --probe-every"),
        (["--keep-best", "loss"], "--keep-best"),
        (["--probe-every", "0", "--probe-data", "x"], "--probe-every must be positive"),
    ],
)
def test_options_that_need_one_another(options, expected, capfd):
    assert expected in fails(capfd, "pretrain", *options)
