"""The probe command: classes and splits, frames of a frozen encoder, the table of arms, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.models import encoders
from experiments.probe import encoded, judgement, labelled_clips, run
from experiments.probe.judgement import Probed, probe_accuracy, scored
from experiments.process.files import read_json
from fed.keys import initial_key
from tests.configs import SMALL, SMALL_LAYER_NORM
from tests.experiments.cli.test_commands import fails
from tests.experiments.probe import corpora
from tests.experiments.probe.corpora import said, tone
from tests.experiments.report.test_figures import fits_a_page
from tests.w2v_jax.interop.made import write_folder
from w2v_jax.config import BEST_RQ_TINY
from w2v_jax.data.audio import to_float
from w2v_jax.data.common_voice import Clip
from w2v_jax.data.tables import ClipRow
from w2v_jax.interop.huggingface_names import PRE_TRAINING
from w2v_jax.model.binding import bind
from w2v_jax.model.wav2vec2 import Encoder
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.recognition import trained_probes

BEST_RQ = BEST_RQ_TINY.replace(
    hidden_dim=16, num_layers=2, num_heads=2, feed_forward_dim=32, positional_groups=4, target_entries=8
)


def clip(number: int, seconds: float, speaker: str = "a", word: str = "low") -> Clip:
    samples = (3e4 * tone(corpora.WORDS.get(word, 500.0), seconds, number)).astype(np.int16)
    return Clip(row=ClipRow(client_id=speaker, path=f"{number}.flac", sentence=word), samples=samples)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return corpora.write(
        folder / "xx",
        {
            "train": [*said("abc", times=3), ("a", "alone")],
            "dev": said("de"),
            "test": [*said("fgh"), ("f", "unheard"), ("g", "unheard")],
        },
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"hf:{write_folder(tmp_path_factory.mktemp('model') / 'small', SMALL, PRE_TRAINING)}"


@pytest.mark.parametrize("config", [SMALL, BEST_RQ], ids=["wav2vec2", "best-rq"])
def test_a_clip_is_heard_alike_beside_a_longer_one(config, monkeypatch):
    monkeypatch.setattr(encoded, "SHAPES", 1)
    monkeypatch.setattr(encoded, "BATCH_SECONDS", 1)
    parameters = run.random_parameters(config, 0)
    clips = [clip(0, 0.31), clip(1, 0.5)]
    together = encoded.encoder_features(config, parameters, clips)
    alone = encoded.encoder_features(config, parameters, clips[:1])
    assert tuple(together) == encoded.layer_names(config)
    for name, values in alone.items():
        np.testing.assert_allclose(together[name][0], values[0], rtol=2e-4, atol=2e-5)


def test_layers_are_the_encoders_own(monkeypatch):
    monkeypatch.setattr(encoded, "BATCH_SECONDS", 1)
    parameters, one = run.random_parameters(SMALL_LAYER_NORM, 0), clip(0, 0.4)
    found = encoded.encoder_features(SMALL_LAYER_NORM, parameters, [one])
    assert list(found) == ["input", "layer 1", "layer 2", "final norm"]
    _, apply = bind(lambda key: Encoder(SMALL_LAYER_NORM, key))
    samples = to_float(one.samples)
    out, inner = apply(
        parameters, jnp.asarray(samples)[None], jnp.array([len(samples)], jnp.int32), method="encode"
    )
    frames = {"input": out.projected, "layer 2": inner["hidden_layers"][1], "final norm": out.context}
    for name, values in frames.items():
        # The mean of the segments' means is the mean over frames.
        means = found[name].reshape(6, -1).mean(0)
        np.testing.assert_allclose(means, np.asarray(values[0]).mean(0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [SMALL, BEST_RQ], ids=["wav2vec2", "best-rq"])
def test_the_random_encoder_is_what_a_run_of_that_seed_begins_from(config):
    begun = jax.jit(pretraining_objective(config).init)(initial_key(7))[0]
    for path, value in jax.tree_util.tree_leaves_with_path(run.random_parameters(config, 7)):
        held = begun
        for part in path:
            held = held[part.key]
        np.testing.assert_array_equal(held, value)


def test_classes_that_cannot_be_used_are_left_out_and_counted(corpus):
    found = labelled_clips.load(str(corpus), "keywords", "sentence", min_samples=1_000, seed=0)
    assert found.classes == ("high", "low", "middle")
    assert {split: len(found.of(split)) for split in ("train", "dev", "test")} == {
        "train": 27, "dev": 12, "test": 18,
    }  # fmt: skip
    assert found.left_out == {"the only clip of its class": 1, "of a class that is not in train": 2}
    assert found.notes == (
        "1 classes have a single clip, which is left out: alone",
        "2 clips of test are of classes that are not in train, and left out: unheard",
    )
    words = [held.row.sentence for held in found.clips]
    assert [found.classes[label] for label in found.labels] == words


def test_for_speakers_every_speakers_clips_are_split_by_the_seed(corpus):
    found = labelled_clips.load(str(corpus), "speaker", "sentence", min_samples=1_000, seed=0)
    assert found.classes == tuple("abcdefgh")
    for number in range(len(found.classes)):
        own = found.places[found.labels == number]
        assert set(own) == {"train", "dev", "test"}
    again = labelled_clips.load(str(corpus), "speaker", "sentence", min_samples=1_000, seed=0)
    other = labelled_clips.load(str(corpus), "speaker", "sentence", min_samples=1_000, seed=1)
    assert found.places.tolist() == again.places.tolist() != other.places.tolist()


def test_an_accuracy_has_the_interval_of_its_speakers():
    places = np.array(["train"] * 2 + ["dev"] * 2 + ["test"] * 6)
    speakers = "aabbcccdee"
    labels = np.array([0, 1, 0, 1, 0, 0, 1, 1, 0, 1])
    clips = [clip(index, 0.1, speaker=speaker) for index, speaker in enumerate(speakers)]
    held = labelled_clips.LabelledClips(clips=clips, labels=labels, places=places, classes=("x", "y"))
    found = scored(Probed("layer 1", 0.5, np.array([0, 0, 0, 1, 1, 1]), {"penalty": 1.0}), held)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["by_speaker"] == {"c": pytest.approx(2 / 3), "d": 1.0, "e": 0.5}
    # t(2 degrees of freedom, 97.5 %) = 4.3027.
    values = np.array([2 / 3, 1.0, 0.5])
    half = 4.302653 * values.std(ddof=1) / 3**0.5
    assert found["interval"] == pytest.approx([values.mean() - half, values.mean() + half], rel=1e-5)
    assert found["confusion"] == [[2, 1], [1, 2]]
    other = found | {"by_speaker": {"c": 2 / 3, "d": 0.5, "e": 0.5}}
    assert judgement.difference(found, other)["mean"] == pytest.approx(0.5 / 3)


def test_the_command_compares_runs_with_log_mel_and_a_random_encoder(
    corpus, model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(encoded, "BATCH_SECONDS", 4)
    monkeypatch.setattr(trained_probes, "MOST_LOOKS", 2)
    monkeypatch.setattr(trained_probes, "HIDDEN", 16)
    out = tmp_path / "out"
    argv = ["probe", model, "--data", str(corpus), "--labels", "20", "100", "--out", str(out)]
    assert cli.main(argv) == 0
    printed = capsys.readouterr().out
    assert "1 classes have a single clip, which is left out: alone" in printed
    assert "train: 27 clips of 3 speakers, dev: 12 clips of 2 speakers" in printed
    result = read_json(out / "result.json")
    assert list(result["arms"]) == ["log-mel", "random Hugging Face, seed 0", model]
    log_mel, own = result["arms"]["log-mel"], result["arms"][model]
    assert log_mel["linear"]["accuracy"] == 1.0
    assert log_mel["linear"]["interval"] == [1.0, 1.0]
    assert own["random"] == "random Hugging Face, seed 0"
    assert list(own["layers"]) == ["input", "layer 1", "layer 2"]
    assert own["layers"][own["linear"]["layer"]]["linear"]["accuracy"] == own["linear"]["accuracy"]
    for head in ("linear", "mlp", "weighted_sum"):
        gain = own["gain"][head]["log-mel"]["mean"]
        assert gain == pytest.approx(own[head]["accuracy"] - log_mel[head]["accuracy"])
    assert [budget["clips"] for budget in own["budgets"]] == [6]
    page = (out / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert f"{model} is " in page or f"between {model} and" in page
    assert (out / "result.png").stat().st_size > 10_000
    assert fits_a_page(out / "result.png")

    # What pretrain asks for in process is the better dev accuracy of the middle and the last layer.
    labelled = labelled_clips.load(str(corpus), "keywords", "sentence", min_samples=1_000, seed=0)
    source = encoders.load(model, None)
    assert source.parameters is not None
    expected = max(own["layers"][name]["linear"]["dev_accuracy"] for name in ("layer 1", "layer 2"))
    assert probe_accuracy(source.config, source.parameters, labelled) == pytest.approx(expected)


def rows_with(**changes):
    return {"train": said("abc"), "dev": said("de"), "test": said("fg")} | changes


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        (rows_with(), ["--column", "sentense"], "unknown --column 'sentense': did you mean sentence?"),
        (rows_with(), ["--column", "gender"], "has no gender: a probe needs a column of its tables"),
        (
            {name: [(speaker, "") for speaker, _ in held] for name, held in rows_with().items()},
            [],
            "has no sentence: a probe needs a column of its tables",
        ),
        ({"train": said("ab")}, [], "has no dev.tsv and no test.tsv, and 2 speakers in train.tsv"),
        ({"train": said("a")}, [], "and 1 speaker in train.tsv: too few to set some aside"),
        (rows_with(train=said("abc", ["low"])), [], "has 1 class (low) with two clips or more"),
        (rows_with(test=said("f", ["unheard"])), [], "no clip of test is of a class that a probe is trained"),
        (
            {split: [("a", word) for _, word in held] for split, held in rows_with().items()},
            ["--task", "speaker"],
            "has 1 class (a) with two clips or more",
        ),
        (rows_with(), ["--task", "speaker", "--column", "accent"], "--column has a meaning with"),
        (rows_with(), ["--labels", "0"], "--labels takes percentages above 0 and up to 100, got 0"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(rows, options, expected, model, tmp_path, capfd):
    data = corpora.write(tmp_path / "xx", rows)
    assert expected in fails(capfd, "probe", model, "--data", str(data), *options)


def test_no_run_is_one_line(tmp_path, capfd):
    message = fails(capfd, "probe", str(tmp_path / "none"), "--data", str(tmp_path))
    assert "none: no such pre-training run" in message


def test_speakers_of_dev_that_are_in_train_are_told(tmp_path):
    data = corpora.write(tmp_path / "xx", rows_with(dev=said("abd")))
    found = labelled_clips.load(str(data), "keywords", "sentence", min_samples=1_000, seed=0)
    assert found.notes == ("2 speakers of dev are in train too: scores flatter every arm",)


def test_a_missing_split_is_made_of_other_speakers(tmp_path):
    data = corpora.write(tmp_path / "xx", {"train": said("abcdefghij", ["low", "high"])})
    found = labelled_clips.load(str(data), "keywords", "sentence", min_samples=1_000, seed=0)
    speakers = {split: set(found.speakers()[found.of(split)].tolist()) for split in ("train", "dev", "test")}
    assert {split: len(held) for split, held in speakers.items()} == {"train": 8, "dev": 1, "test": 1}
    assert len(set.union(*speakers.values())) == 10
    assert found.notes[0] == "no dev.tsv: dev was made of speakers of train.tsv"
