"""BEST-RQ through the commands, in this process: runs, is cut off, continues, is fine-tuned, is refused."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest
import soundfile

from experiments.cli import main as cli
from experiments.models import encoders
from experiments.models.pretraining_runs import open_run
from experiments.process.files import read_json
from experiments.runs.folder import read_metrics
from tests.experiments.cli.test_commands import fails
from tests.w2v_jax.interop.made import write_json
from w2v_jax.config import BEST_RQ_TINY, PRESETS, SAMPLE_RATE_HZ, TINY
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus
from w2v_jax.objective.pretraining import pretraining_objective

# A preset's shape would only cost time here.
SMALL = BEST_RQ_TINY.replace(
    hidden_dim=32,
    num_layers=2,
    num_heads=2,
    feed_forward_dim=64,
    target_codebooks=2,
    target_entries=32,
    scan_unroll=2,
    mask_span=3,
)
OPTIONS = [
    "--objective", "best-rq", "--preset", "ten-clients", "--clients", "2", "--rounds", "2",
    "--local-steps", "1", "--batch", "2", "--seconds", "1", "--checkpoint-every", "1",
    "--heldout-speakers", "1", "--evaluate-every", "1", "--seed", "3",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small_preset():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "best-rq-tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of one length, so that little is compiled."""
    config = SyntheticConfig(speakers=4, clips_per_speaker=3, words=8, words_per_sentence=(2, 3), seed=4)
    locale = write_corpus(tmp_path_factory.mktemp("corpus"), config)
    for path in (locale / "clips").iterdir():
        samples, _ = soundfile.read(path, dtype="float32")
        soundfile.write(path, np.resize(samples, 25_600), SAMPLE_RATE_HZ, subtype="PCM_16")
    return locale


def pretrain(corpus, out, *options):
    assert cli.main(["pretrain", "--data", str(corpus), "--out", str(out), *OPTIONS, *options]) == 0
    return out


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    return pretrain(corpus, tmp_path_factory.mktemp("runs") / "best-rq")


def parameters_of(run):
    like = jax.eval_shape(pretraining_objective(SMALL).init, jax.random.key(0))[0]
    return open_run(str(run)).parameters(like)


def test_a_run_has_the_objectives_metrics_and_a_report(run):
    settings = read_json(run / "config.json")["settings"]
    assert (settings["model"], settings["model_config"]["objective"]) == ("best-rq-tiny", "best-rq")
    untrained = read_json(run / "untrained.json")
    assert untrained["loss"] == pytest.approx(np.log(32), abs=0.1)
    line = read_metrics(run / "metrics.jsonl")[-1]
    assert {"heldout_loss", "heldout_accuracy", "chance_accuracy", "code_perplexity"} <= set(line)
    assert "contrastive" not in line
    assert 1 / 32 <= line["chance_accuracy"] < 0.9
    assert (run / "curves.png").stat().st_size > 10_000
    report = (run / "report.md").read_text()
    assert "best-rq" in report
    assert report.startswith("# Pre-training report\n\n- The model ")
    assert "## Is this run healthy?\n\nWatch this run" in report
    assert "too short a run" in report  # two updates


@pytest.mark.slow
def test_a_run_that_was_cut_off_continues_to_the_same_bits(corpus, run, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(run, cut)
    (newest,) = [path for path in (cut / "checkpoints").iterdir() if path.name == "2"]
    shutil.rmtree(newest)
    pretrain(corpus, cut)
    jax.tree.map(np.testing.assert_array_equal, parameters_of(cut), parameters_of(run))


def test_a_run_begins_from_another_and_from_no_other_objective(corpus, run, tmp_path, capfd):
    assert encoders.pretraining_choice(str(run), None, None) == ("best-rq-tiny", SMALL)
    begun = encoders.load_pretraining(str(run)).parameters
    assert begun is not None
    jax.tree.map(np.testing.assert_array_equal, dict(begun), parameters_of(run))
    settings = {"preset": "ten-clients", "model": "tiny", "model_config": dataclasses.asdict(TINY)}
    (tmp_path / "other").mkdir()
    write_json(tmp_path / "other" / "config.json", {"settings": settings, "provenance": {}})
    capfd.readouterr()
    new = ["pretrain", "--data", str(corpus), "--out", str(tmp_path / "new")]
    words = fails(capfd, *new, "--objective", "best-rq", "--init", str(tmp_path / "other"))
    assert "was trained by wav2vec2, on waveform input: give a run of best-rq" in words
    words = fails(capfd, *new, "--objective", "wav2vec2", "--init", str(run))
    assert "was trained by best-rq, on log-mel input: give a run of wav2vec2" in words
    with pytest.MonkeyPatch.context() as patch:  # a model of the same shape
        patch.setitem(PRESETS, "log-mel-tiny", SMALL.replace(objective="wav2vec2"))
        words = fails(capfd, *new, "--model", "log-mel-tiny", "--init", str(run))
    assert "--model log-mel-tiny: --init" in words
    assert "was trained by best-rq" in words
    words = fails(capfd, *new, "--model", "tiny", "--init", str(run))
    assert "front_end is log-mel there and waveform here" in words
    assert not (tmp_path / "new").exists()


def test_it_fine_tunes_and_transcribes_and_is_no_model_of_hugging_face(corpus, run, tmp_path, capfd):
    source = encoders.load(str(run), None)
    assert source.description["recipe"] == "best-rq-tiny"
    assert source.parameters is not None
    assert "prediction" not in source.parameters
    out = tmp_path / "finetuned"
    options = ["--updates", "2", "--evaluate-every", "2", "--batch-seconds", "8", "--max-seconds", "3"]
    heads = ["--head-blocks", "1", "--head-width", "16", "--seed", "3"]
    argv = ["finetune", "--init", str(run), "--data", str(corpus), "--out", str(out), *options, *heads]
    assert cli.main(argv) == 0
    clip = next((corpus / "clips").iterdir())
    capfd.readouterr()
    assert cli.main(["transcribe", "--run", str(out), str(clip)]) == 0
    assert clip.name in capfd.readouterr().out
    for folder in (run, out):
        words = fails(capfd, "convert", str(folder), "--out", str(tmp_path / "hf"))
        assert "a model of best-rq on log-mel spectra cannot be written for Hugging Face" in words
        assert str(folder) in words
    assert not (tmp_path / "hf").exists()


STEP = ["--model", "best-rq-tiny", "--seconds", "1", "--batch", "2"]


def test_a_profile_counts_the_front_end_and_the_heads(tmp_path):
    assert cli.main(["profile", *STEP, "--out", str(tmp_path)]) == 0
    result = read_json(tmp_path / "profile.json")
    assert not result["unpriced"]
    rows = {row["layer"]: row for row in result["layers"]}
    assert rows["log_mel"]["forward"]["elementwise"] > 2 * 96 * 2.5 * 512 * 9  # Fourier transforms alone
    assert rows["quantization"]["params"] == 33 * 64


@pytest.mark.slow  # its step, and the plain one, are compared in test_plain_step.py
def test_an_export_has_a_plain_step(tmp_path, capfd):
    assert cli.main(["export", *STEP, "--platforms", "cpu", "--out", str(tmp_path / "export")]) == 0
    assert "which lacks" not in capfd.readouterr().out
    losses = read_json(tmp_path / "export" / "artifact.json")["probe"]["losses"]
    assert losses[0] == pytest.approx(np.log(32), abs=0.2)
    assert losses[0] != losses[1]
