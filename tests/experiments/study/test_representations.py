"""The study of representations: its arms and commands, and numbers from made-up probes."""

import pytest

from experiments.probe.metrics import CHARACTER_ERROR_RATE, metric_of
from experiments.study.comparison import dots_and_bars, leader, sentence
from experiments.study.representations import arms as plan
from experiments.study.representations import command, report, results
from experiments.study.representations.arms import BEST_RQ, CENTRALISED, FEDAVG, SCALES, WAV2VEC2, Arm
from tests.experiments.probe import corpora

ARMS = plan.arms((BEST_RQ, WAV2VEC2), (CENTRALISED, FEDAVG))
SEEDS = 3
# Accuracy with all labels by arm; each seed adds a hundredth, and a share of the labels takes some away.
LEVELS = dict(zip([arm.name for arm in ARMS], (0.80, 0.77, 0.79, 0.70), strict=True))
RANDOM = {BEST_RQ: 0.6, WAV2VEC2: 0.55}


def probed(level, seed, key="accuracy"):
    level += 0.01 * seed
    return {
        "linear": {key: level, "layer": "layer 2", "by_speaker": {"a": level - 0.1, "b": level + 0.1}},
        "budgets": [{"share": 0.01, key: level / 4}, {"share": 0.1, key: level / 2}],
    }


def run_of(arm, seed):
    return f"cells/{arm.slug}-{seed}"


def probe_of(seed, key):
    """A probe's result. Random encoders keep their level over the seeds, log-mel too."""
    found = {results.LOG_MEL: probed(0.5, 0, key)}
    for arm in ARMS:
        random = f"random {arm.encoder}"
        found[random] = probed(RANDOM[arm.encoder], 0, key)
        found[run_of(arm, seed)] = probed(LEVELS[arm.name], seed, key) | {"random": random}
    return {"arms": found}


def study(task):
    metric = metric_of(task)
    found = [probe_of(seed, metric.key) for seed in range(SEEDS)]
    heard = {"audio_seconds": 16e3, "audio_seconds_a_second": 100.0, "padded_share": 0.02, "bytes_up": 1e6}
    made = {
        "scale": {"name": "small", **vars(SCALES["small"])},
        "seeds": SEEDS,
        "models": {BEST_RQ: "best-rq-tiny", WAV2VEC2: "log-mel-tiny"},
        "clips": {
            "splits": {name: {"speakers": 6, "clips": 120} for name in ("train", "dev", "test")},
            "classes": 40,
            "characters": 27,
        },
        "task": task,
        "rows": [
            results.row(arm, seed, run_of(arm, seed), found[seed], metric) | heard
            for seed in range(SEEDS)
            for arm in ARMS
        ],
        "baselines": results.baselines(
            ARMS, [{arm: run_of(arm, seed) for arm in ARMS} for seed in range(SEEDS)], found, metric
        ),
        "provenance": {
            "command": "w2v-jax study representations",
            "commit": "abc",
            "cores": 2,
            "device": "2 x cpu",
            "versions": {"jax": "0"},
            "xla_flags": "",
        },
    }
    made |= {"arms": results.summaries(made)}
    return made | {"comparisons": results.comparisons(made)}


@pytest.fixture(scope="module")
def result():
    made = study("keywords")
    del made["task"]  # as in results of before there were characters
    return made


def comparison(result, one, other):
    return next(held for held in result["comparisons"] if (held["one"], held["other"]) == (one, other))


def test_accuracies_are_means_over_seeds_by_share_of_the_labels(result):
    best = next(held for held in result["arms"] if held["arm"] == "best-rq, centralised")
    assert best["accuracy"]["100"]["mean"] == pytest.approx(0.81)
    assert best["accuracy"]["10"]["mean"] == pytest.approx(0.405)
    assert best["accuracy"]["1"]["mean"] == pytest.approx(0.2025)
    # Student's t, two degrees of freedom: 4.303 x 0.01 / sqrt(3).
    assert best["accuracy"]["100"]["half"] == pytest.approx(0.02484, abs=1e-5)
    log_mel = next(held for held in result["arms"] if held["arm"] == results.LOG_MEL)
    assert log_mel["accuracy"]["100"]["by_seed"] == [0.5] * SEEDS
    assert "audio_seconds" not in log_mel


def test_differences_are_paired_by_seed_and_by_speaker(result):
    gap = comparison(result, "best-rq, ten clients", "best-rq, centralised")
    assert gap["by_seed"]["100"]["mean"] == pytest.approx(-0.03)
    assert gap["by_seed"]["100"]["half"] == pytest.approx(0.0, abs=1e-12)  # seeds move both alike
    assert gap["by_speaker"]["mean"] == pytest.approx(-0.03)
    gain = comparison(result, "wav2vec2, ten clients", "wav2vec2, random")
    assert gain["by_seed"]["100"]["mean"] == pytest.approx(0.16)
    # Twelve comparisons: Student's t of 1 - 0.05 / 24 with two degrees of freedom is 15.44.
    assert gain["by_seed"]["100"]["half"] == pytest.approx(0.08916, abs=1e-5)
    assert comparison(result, "best-rq, ten clients", "wav2vec2, ten clients")
    pairs = [(held["one"], held["other"]) for held in result["comparisons"]]
    assert len(pairs) == len(set(pairs)) == 12


def test_the_report_says_what_is_decided_and_what_is_not(result):
    text = report.markdown(result)
    assert "- best-rq, centralised is better than log-mel: +31.0 ± 8.9 points." in text
    assert "- best-rq, ten clients is WORSE than best-rq, centralised: -3.0 ± 0.0 points." in text
    unsure = sentence("one", "another", {"mean": 0.02, "half": 0.03})
    assert unsure == "one against another: undecided (+2.0 ± 3.0 points)."
    assert sentence("one", "another", {"mean": 0.02, "half": None}).endswith("one seed alone.")


def test_the_picture_says_which_arm_is_best_and_what_its_bars_are(result):
    said = report._caption(result)
    assert said.startswith(
        "With all labels best-rq, centralised has the highest mean accuracy, 81.0 %; log-mel"
    )
    sure = sum(abs(held["by_seed"]["100"]["mean"]) > held["by_seed"]["100"]["half"]
               for held in result["comparisons"])  # fmt: skip
    assert 0 < sure <= 12
    assert f"The intervals of {sure} of 12 differences leave zero out. A dot is the mean over 3 seeds" in said
    assert dots_and_bars(1) == "A dot is one seed, so that there are no error bars."
    means = [{"arm": "log-mel", "mean": 0.2}, {"arm": "a", "mean": 0.3}, {"arm": "b", "mean": 0.4}]
    assert leader(means, "log-mel").startswith("b has the highest mean accuracy, 40.0 %; log-mel has 20.0 %.")
    errs = leader(means, "log-mel", CHARACTER_ERROR_RATE)
    assert errs == "log-mel has the lowest mean character error rate, 20.0 %; a has 30.0 %."


def test_fewer_errors_are_better(tmp_path):
    made = study("characters")
    text = report.markdown(made)
    assert "- best-rq, centralised errs MORE than log-mel: +31.0 ± 8.9 points." in text
    assert "- best-rq, ten clients errs less than best-rq, centralised: -3.0 ± 0.0 points." in text
    assert "## Character error rate by share of the labels; lower is better" in text
    assert "Differences of error rates: a negative one is better" in text
    assert "an alphabet of 27 characters" in text
    report.draw(made, tmp_path / "made.png")
    assert (tmp_path / "made.png").stat().st_size > 10_000


def test_all_arms_hear_the_same_audio():
    scale = SCALES["small"]
    federated = plan.CLIENTS * scale.local_steps * scale.batch_size
    assert scale.central_steps * scale.central_batch_size == federated


def test_commands_are_those_of_the_arm(tmp_path):
    made = plan.pretraining(
        Arm(encoder=WAV2VEC2, training=CENTRALISED), 4, "words", SCALES["small"], tmp_path
    )
    words = " ".join(made.arguments)
    assert words.startswith("pretrain --model log-mel-tiny --rounds 10 --preset centralised")
    assert "--exclude-speakers-of test" in words
    assert "--seed 4" in words
    federated = plan.pretraining(
        Arm(encoder=BEST_RQ, training=plan.SPEAKERS), 0, "words", SCALES["small"], tmp_path
    )
    assert "--partition speakers --clients-per-round 10" in " ".join(federated.arguments)
    probe = plan.probing([made.out, federated.out], 4, "words", SCALES["small"], tmp_path)
    assert probe.arguments[1:3] == (str(made.out), str(federated.out))
    assert "--task" not in probe.arguments

    written = plan.probing([made.out], 4, "texts", SCALES["small"], tmp_path, "characters")
    assert "--task characters --labels 1 10 100" in " ".join(written.arguments)
    longer = plan.pretraining(
        Arm(encoder=BEST_RQ, training=FEDAVG), 0, "texts", SCALES["small"], tmp_path, 1.8
    )
    assert longer.arguments[-2:] == ("--seconds", "1.8")


@pytest.mark.parametrize(("seconds", "expected"), [(3.0, 2.0), (1.0, 1.0)])
def test_every_run_hears_crops_of_one_length_that_fits_the_clips(seconds, expected, tmp_path):
    data = corpora.write(tmp_path / "xx", {"train": [("a", "low"), ("b", "high")]}, seconds)
    models = list(plan.MODELS.values())
    assert command.shared_crop(str(data), models) == pytest.approx(expected, abs=0.1)
