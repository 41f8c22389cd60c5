"""Real runs that go wrong for one reason, and real healthy ones: the doctor tells them apart."""

import numpy as np
import pytest
import soundfile

from experiments.cli import main as cli
from experiments.doctor.diagnosis import diagnose
from experiments.doctor.reading import read
from tests.experiments.doctor.test_planted_failures import names
from w2v_jax.config import BEST_RQ_TINY, PRESETS, SAMPLE_RATE_HZ
from w2v_jax.data.synthetic import SyntheticConfig, write_corpus

# A preset's shape would only cost time.
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
NO_MASKS = SMALL.replace(mask_probability=0.0, mask_min_spans=1, mask_span=1)
OPTIONS = [
    "--model", "best-rq-tiny", "--batch", "4", "--seconds", "0.9", "--heldout-speakers", "2",
    "--checkpoint-every", "100", "--seed", "3",
]  # fmt: skip
CENTRALISED = ["--preset", "centralised", "--evaluate-every", "4", "--rounds", "20", "--local-steps", "10"]
CLIENTS = ["--preset", "ten-clients", "--evaluate-every", "4", "--rounds", "16", "--local-steps", "4"]
CLIENTS += ["--clients"]
TAUGHT_NOTHING = ["no update that taught"]


def small_corpus(folder):
    """Write eight speakers with three clips of one second each."""
    config = SyntheticConfig(speakers=8, clips_per_speaker=3, words=8, words_per_sentence=(2, 3), seed=4)
    locale = write_corpus(folder, config)
    for path in (locale / "clips").iterdir():
        samples, _ = soundfile.read(path, dtype="float32")
        soundfile.write(path, np.resize(samples, SAMPLE_RATE_HZ), SAMPLE_RATE_HZ, subtype="PCM_16")
    return locale


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return small_corpus(tmp_path_factory.mktemp("corpus"))


def pretrain(corpus, out, monkeypatch, *options, model=SMALL):
    """Run pretrain in this process, and diagnose its folder."""
    monkeypatch.setitem(PRESETS, "best-rq-tiny", model)
    assert cli.main(["pretrain", "--data", str(corpus), "--out", str(out), *OPTIONS, *options]) == 0
    return diagnose(read(out))


@pytest.mark.slow
def test_a_run_that_is_too_short_says_so_in_its_report_and_in_watch(corpus, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    short = ["--preset", "centralised", "--rounds", "2", "--local-steps", "1", "--evaluate-every", "2"]
    assert names(pretrain(corpus, out, monkeypatch, *short)) == ["too short a run"]
    report = (out / "report.md").read_text()
    assert "## Is this run healthy?\n\nWatch this run" in report
    assert "too short a run" in report
    assert "--rounds or --local-steps" in (out / "report.html").read_text()
    capsys.readouterr()
    assert cli.main(["watch", "--once", str(out)]) == 0
    assert "health: watch: too short a run" in capsys.readouterr().out


REAL = {
    "healthy": (CENTRALISED, SMALL, "healthy", []),
    "healthy clients": ([*CLIENTS, "3"], SMALL, "healthy", []),
    "rate 10": ([*CENTRALISED, "--learning-rate", "10"], SMALL, "broken", ["rate too high"]),
    "rate 1e-9": ([*CENTRALISED, "--learning-rate", "1e-9"], SMALL, "broken", ["rate too low"]),
    "one client": ([*CLIENTS, "1"], SMALL, "watch", ["one client"]),
    "no masks": (CENTRALISED, NO_MASKS, "broken", ["masks are too few"]),
    "too large": ([*CLIENTS, "3", "--max-update-norm", "1e-6"], SMALL, "broken", TAUGHT_NOTHING),
    "not finite": ([*CLIENTS, "3", "--learning-rate", "1e30"], SMALL, "broken", TAUGHT_NOTHING),
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", REAL)
def test_a_real_run_that_goes_wrong_for_one_reason(failure, corpus, tmp_path, monkeypatch):
    options, model, verdict, expected = REAL[failure]
    diagnosis = pretrain(corpus, tmp_path / "run", monkeypatch, *options, model=model)
    assert diagnosis.verdict == verdict
    assert names(diagnosis)[:1] == expected


@pytest.mark.slow
def test_a_real_centralised_run_that_diverges_at_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "best-rq-tiny", SMALL)
    options = [*OPTIONS, *CENTRALISED, "--learning-rate", "1e30"]
    assert cli.main(["pretrain", "--data", str(corpus), "--out", str(tmp_path / "run"), *options]) == 2
    diagnosis = diagnose(read(tmp_path / "run"))
    assert (diagnosis.verdict, names(diagnosis)[:1]) == ("broken", ["loss not finite"])


@pytest.mark.slow
def test_a_real_recognizer_in_its_blank_phase(corpus, tmp_path):
    options = [
        "--features", "log-mel", "--updates", "40", "--evaluate-every", "10", "--batch-seconds", "8",
        "--max-seconds", "3", "--head-blocks", "0", "--head-optimizer", "adam",
        "--head-learning-rate", "0.01",
    ]  # fmt: skip
    out = tmp_path / "run"
    assert cli.main(["finetune", "--data", str(corpus), "--out", str(out), *options]) == 0
    diagnosis = diagnose(read(out))
    assert names(diagnosis) == ["blank phase of CTC"]
    assert "## Is this run healthy?" in (out / "report.md").read_text()
