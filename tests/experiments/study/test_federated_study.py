"""Figures 1 and 5: the commands of their cells, and what is made of what those leave behind."""

import json
from pathlib import Path

import pytest

from experiments.cli import main as cli
from experiments.options.errors import UsageError
from experiments.pretrain.recipes import PRESETS
from experiments.report.statistics import over_seeds
from experiments.reproduce import fig1 as reproduce_fig1
from experiments.reproduce import fig1_report
from experiments.reproduce.fig5 import command as reproduce_fig5
from experiments.reproduce.fig5 import report as fig5_report
from experiments.reproduce.fig5 import sentences as fig5_sentences
from experiments.study import convergence, federated_results
from experiments.study.convergence import reached_for_good
from experiments.study.curves import direction, verdict
from experiments.study.federated import (
    Rates,
    Study,
    fairness_cells,
    finetuning_cells,
    heldout_speakers,
    pretraining_cells,
)
from experiments.study.federated_scales import (
    ARMS,
    CENTRALISED,
    FEDERATED,
    LOG_MEL,
    PRETRAINED,
    RANDOM,
    SCALES,
    SCRATCH,
    TUNED_ON,
)
from w2v_jax.config import TINY
from w2v_jax.errors import UserError

RATES = Rates({SCRATCH: 3e-3, TUNED_ON: 1e-3}, {LOG_MEL: 3e-2, RANDOM: 1e-2, TUNED_ON: 1e-2})
PROVENANCE = {"cell_commits": ["abc"], "device": "", "cores": [1, 2], "versions": {}, "command": ""}
CERS = {SCRATCH: 0.9, CENTRALISED: 0.6} | dict(zip(FEDERATED, (0.7, 0.72, 0.8, 0.78), strict=True))


def write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_recognition(folder: Path, cer: float) -> None:
    rates = {"wer": 1.2 * cer, "cer": cer, "loss": 3 * cer, "empty_hypotheses": 1, "words": 500}
    write(
        folder / "results.json",
        {
            "test": rates,
            "dev": {"wer": 1.1 * cer, "cer": cer, "loss": 3 * cer},
            "best_update": 5,
            "audio_seconds": 100.0,
            "train_seconds": 9.0,
            "provenance": {"commit": "abc"},
        },
    )
    write(folder / "data.json", {"train": {"seconds": 1800.0}})
    line = {"update": 5, "audio_seconds": 100.0, "dev_loss": 2.0, "dev_cer": cer}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")


def write_pretraining(folder: Path, arm: str, ends: float, seed: int) -> None:
    """Two rounds on a straight line from a loss of 5 to `ends`, of 10 updates and 80 s each."""
    write(folder / "untrained.json", {"contrastive": 5.0, "accuracy": 0.02, "code_perplexity": 200.0})
    write(folder / "clips.json", {"clients": {"a": {}, "b": {}}, "speakers_also_in": {}})
    provenance = {"commit": "abc", "device": "1 x cpu", "cores": 2, "xla_flags": ""}
    write(folder / "config.json", {"settings": {}, "provenance": provenance})
    central = arm == CENTRALISED
    lines = []
    for number in (1, 2):
        line = {
            "round": number,
            "clients": 0 if central else 2,
            "local_steps": 10 if central else 20,
            "audio_seconds": 80.0,
            "heldout_contrastive": 5.0 + (ends - 5.0) * number / 2,
            "heldout_accuracy": 0.1,
            "heldout_code_perplexity": 100.0,
        }
        if not central:
            line |= {"effective_clients": 1.8, "client_losses": [4.0, 4.2 + seed]}
        lines.append(json.dumps(line))
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if not central:
        client = {"cosine_to_mean": 0.5, "cosine_to_others": 0.25, "heldout_contrastive": 4.0}
        clients = [client | {"heldout_code_perplexity": codes} for codes in (50.0, 70.0)]
        after = {"contrastive": 3.9, "code_perplexity": 40.0}
        look = {"round": 2, "clients": clients, "after": after}
        (folder / "diagnostics.jsonl").write_text(json.dumps(look) + "\n", encoding="utf-8")


@pytest.fixture
def study(tmp_path) -> Study:
    """A finished study whose cells were made up: federated arms go half as far as centralised training."""
    study = Study(scale_name="smoke", data="corpora/en", seeds=2, out=tmp_path, heldout_speakers=5)
    for seed in study.seed_range():
        for arm in PRETRAINED:
            ends = (2.0 if arm == CENTRALISED else 3.5) + 0.1 * seed
            write_pretraining(study.pretraining(arm, seed).out, arm, ends, seed)
    cells = [trial.cell for trial in study.tuning()]
    for cell in [*cells, *finetuning_cells(study, RATES), *fairness_cells(study, RATES)]:
        arm = next(a for a in sorted((*ARMS, LOG_MEL, RANDOM), key=len, reverse=True) if a in cell.name)
        write_recognition(cell.out, {LOG_MEL: 0.95, RANDOM: 0.97, **CERS}[arm] + 0.001 * int(cell.name[-1]))
    return study


@pytest.mark.parametrize("name", SCALES)
def test_all_arms_hear_the_same_audio_a_round(name):
    work = SCALES[name].local_work

    def value(preset: str, option: str, default: int) -> int:
        words = work[preset]
        return int(words[words.index(option) + 1]) if option in words else default

    heard = {
        preset: value(preset, "--local-steps", 0)
        * (
            1
            if preset == CENTRALISED
            else value(
                preset,
                "--clients-per-round",
                min(PRESETS[preset].clients_per_round, value(preset, "--clients", PRESETS[preset].clients)),
            )
        )
        for preset in work
    }
    assert len(set(heard.values())) == 1, heard


@pytest.mark.parametrize("name", SCALES)
def test_every_cells_command_is_one_that_its_command_takes(name, tmp_path):
    from experiments.options import arguments
    from experiments.pretrain.command import PretrainArguments
    from experiments.pretrain.command import resolve as resolve_pretrain
    from experiments.recognition.finetune import FinetuneArguments
    from experiments.recognition.finetune import resolve as resolve_finetune

    study = Study(scale_name=name, data="corpora/en", seeds=2, out=tmp_path, heldout_speakers=5)
    cells = pretraining_cells(study) + finetuning_cells(study, RATES) + fairness_cells(study, RATES)
    cells += [trial.cell for trial in study.tuning()]
    assert len({cell.out for cell in cells}) == len(cells)
    for cell in cells:
        command, *words = cell.arguments
        if command == "pretrain":
            settings = resolve_pretrain(arguments.parse(PretrainArguments, words, "pretrain"))
            assert settings["rounds"] == study.scale.rounds
            assert all(r % settings["checkpoint_every"] == 0 for r in study.scale.trend_rounds)
            assert settings["rounds"] % settings["evaluate_every"] == 0
        else:
            resolve_finetune(arguments.parse(FinetuneArguments, words, "finetune"))


def test_a_cell_fine_tunes_the_encoder_of_its_own_arm_seed_and_round(tmp_path):
    study = Study(scale_name="small", data="corpora/en", seeds=2, out=tmp_path, heldout_speakers=5)
    before = study.pretraining(FEDERATED[2], 1)
    words = study.finetuning(FEDERATED[2], 1, 1e-3, at_round=4).arguments
    assert words[words.index("--init") + 1] == f"{before.out}@4"
    words = study.probe(RANDOM, 1, 1e-2).arguments
    assert words[words.index("--init") + 1] == SCRATCH
    assert words[words.index("--freeze") + 1] == "encoder"
    assert "--init" not in study.probe(LOG_MEL, 1, 1e-2).arguments


def test_learning_rates_are_chosen_by_validation_alone(tmp_path):
    study = Study(scale_name="small", data="corpora/en", seeds=1, out=tmp_path, heldout_speakers=5)
    best = {
        ("encoder", SCRATCH): 1e-3,
        ("encoder", TUNED_ON): 3e-4,
        ("probe", LOG_MEL): 3e-2,
        ("probe", RANDOM): 1e-2,
        ("probe", TUNED_ON): 3e-3,
    }
    for what, arm, rate, cell in study.tuning():
        if (what, arm, rate) == ("encoder", SCRATCH, 3e-3):
            continue  # diverged
        chosen = best[what, arm] == rate
        write_recognition(cell.out, 0.5)
        (cell.out / cell.product).touch()
        result = json.loads((cell.out / "results.json").read_text())
        result["dev"]["loss"] = 2.5 if chosen else 2.6
        result["dev"]["cer"] = 0.7 if chosen else 0.6  # would choose otherwise, as would the test split
        result["test"]["loss"] = 3.5 if chosen else 1.5
        write(cell.out / "results.json", result)
    rates = study.chosen_rates()
    assert rates.encoder == {SCRATCH: 1e-3, TUNED_ON: 3e-4}
    assert rates.probe == {LOG_MEL: 3e-2, RANDOM: 1e-2, TUNED_ON: 3e-3}
    assert rates.of_encoder(CENTRALISED) == 3e-4
    assert rates.of_encoder(SCRATCH) == 1e-3
    assert [rates.of_probe(arm) for arm in (LOG_MEL, RANDOM, CENTRALISED)] == [3e-2, 1e-2, 3e-3]


def test_a_study_says_so_if_every_learning_rate_diverged(tmp_path):
    study = Study(scale_name="small", data="corpora/en", seeds=1, out=tmp_path, heldout_speakers=5)
    with pytest.raises(UserError, match=r"every learning rate .* encoder on scratch"):
        study.chosen_rates()


def test_reached_for_good_interpolates_and_knows_never():
    assert reached_for_good([0, 10, 20], [5.0, 4.0, 2.0], 3.0) == 15.0
    assert reached_for_good([0, 10], [5.0, 4.0], 5.5) == 0.0
    assert reached_for_good([0, 10], [5.0, 4.0], 3.9) is None
    assert reached_for_good([0, 10], [5.0, 4.0], 4.0) == 10.0
    # A dip does not count.
    assert reached_for_good([0, 10, 20, 30], [5.0, 3.0, 4.0, 2.0], 3.5) == 22.5


def test_a_difference_is_shown_by_its_interval_and_not_by_its_spread():
    # Three seeds agree and the mean is three times the spread: enough for one comparison, not for ten.
    three = over_seeds([-0.03, -0.02, -0.04])
    assert (verdict(three, 1), verdict(three, 10)) == ("better", "no difference shown")
    assert verdict(over_seeds([0.03, 0.02, 0.04]), 1) == "worse"
    # Beyond the spread with all signs alike, which chance alone gives in a fifth of all comparisons.
    assert verdict(over_seeds([-0.5, -2.0, -3.0]), 1) == "no difference shown"
    assert verdict(over_seeds([-0.03]), 1) == "no difference shown"
    assert direction(three, 10) == "no difference shown, lower in 3 of 3 seeds"


def test_fig1_counts_updates_one_after_the_other_and_all_audio(study):
    result = convergence.fig1(study)
    half = next(target for target in result["targets"] if target["share"] == 0.5)
    arm = half["arms"][FEDERATED[0]]
    # Centralised: half way after 10 of 20 updates; federated arms go half its way, so at their end.
    assert half["arms"][CENTRALISED]["updates"]["by_seed"] == pytest.approx([10.0, 10.0])
    assert arm["updates"]["by_seed"][0] == pytest.approx(20.0)
    assert arm["updates_ratio"]["by_seed"][0] == pytest.approx(2.0)
    assert arm["audio_seconds_ratio"]["by_seed"][0] == pytest.approx(2.0)
    whole = result["targets"][-1]["arms"][FEDERATED[0]]
    assert (whole["reached"], whole["updates"]["mean"]) == (0, None)
    share = result["share_of_centralised_drop"][FEDERATED[0]]["by_seed"]
    assert share == pytest.approx([1.5 / 3.0, 1.4 / 2.9])


def test_fig1_has_nothing_to_reach_where_centralised_training_does_not_improve(study):
    for seed in study.seed_range():
        write_pretraining(study.pretraining(CENTRALISED, seed).out, CENTRALISED, 5.5, seed)
    result = convergence.fig1(study)
    assert all(held["reached"] == 0 for target in result["targets"] for held in target["arms"].values())
    assert result["share_of_centralised_drop"][FEDERATED[0]]["mean"] is None


def test_held_out_speakers_are_as_many_for_all_arms_and_leave_every_client_one():
    assert heldout_speakers(128, 100) == 28
    assert heldout_speakers(110, 100) == 10
    assert heldout_speakers(1000, 100) == 28
    assert heldout_speakers(40, 10) == 9
    with pytest.raises(UsageError, match="100 speakers are too few for 100 clients"):
        heldout_speakers(100, 100)
    for scale in SCALES.values():
        assert heldout_speakers(scale.synthetic_speakers, scale.most_clients) >= 1


def test_one_seed_gives_no_interval():
    assert direction(over_seeds([-0.1]), 1) == "no difference shown: one seed gives no interval"


def test_fig1_report_says_what_was_and_what_was_not_reached(study):
    result = convergence.fig1(study)
    runs = [study.finetuning(SCRATCH, seed, RATES.of_encoder(SCRATCH)).out for seed in study.seed_range()]
    result["supervised"] = [reproduce_fig1.supervised_curve(folder) for folder in runs]
    audio = over_seeds([100.0, 100.0])
    result["compute"] = {
        "pretraining": {"flops_per_audio_second": 4e9, "audio_seconds": audio, "flops": 4e11},
        "supervised": {"flops_per_audio_second": 2e9, "audio_seconds": audio, "flops": 2e11},
    }
    result["provenance"] = PROVENANCE
    reproduce_fig1.write(result, study.out)
    text = (study.out / "fig1.md").read_text()
    assert "no seed reaches the centralised loss itself" in text
    assert "costs 2.00 times as many operations in pre-training" in text
    assert (study.out / "fig1.png").stat().st_size > 10_000
    (sentence, *_) = fig1_report.sentences(result)
    assert sentence.startswith("10 clients, fedavg ends 49 ± 1 % of the way")


def test_fig5_report_follows_the_numbers(study):
    result = federated_results.fig5(
        study, RATES, {"pretrain-centralised-0": 60.0, "finetune-scratch-0": 30.0}
    )
    result["provenance"] = PROVENANCE
    result["jobs"] = 2
    reproduce_fig5.write(result, study.out)
    text = (study.out / "fig5.md").read_text()
    assert (study.out / "fig5.png").stat().st_size > 10_000
    assert (study.out / "fig5-fairness.png").stat().st_size > 10_000
    assert "log-mel and a random encoder (loss of the probe) in 4 of 4 arms" in text
    assert "at 95 % for all 54 comparisons of this report together" in text
    assert (
        "in CER for 5 of 5, in test loss for 5 of 5 arms. Scratch's learning rate was chosen on one" in text
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]  # without the padding of cells
    behind = next(line for line in lines if line.startswith("| 10 clients, fedavg | 0.50 ±"))
    assert "| 0.25 ± 0.00 | 4.000 ± 0.000 | 3.900 ± 0.000 | 60 ± 0 | 40 ± 0 |" in behind
    row = next(
        r
        for r in result["comparisons"]
        if (r["kind"], r["arm"], r["against"]) == ("finetuning", FEDERATED[1], FEDERATED[0])
    )
    assert row["cer"]["by_seed"] == pytest.approx([0.02, 0.02])
    losing = next(
        sentence for sentence in fig5_sentences.sentences(result) if "beats FedAvg, 10 clients" in sentence
    )
    assert "CER +2.00 ± 0.00 points (worse, lower in 0 of 2 seeds)" in losing
    # With the arms the other way round the sentence turns.
    fine = result["finetuning"]
    fine[FEDERATED[0]], fine[FEDERATED[1]] = fine[FEDERATED[1]], fine[FEDERATED[0]]
    result["comparisons"] = federated_results.comparisons(fine, result["probes"], result["budgets"])
    winning = next(
        sentence for sentence in fig5_sentences.sentences(result) if "beats FedAvg, 10 clients" in sentence
    )
    assert "CER -2.00 ± 0.00 points (better, lower in 2 of 2 seeds)" in winning


def fig5_of(study) -> dict:
    result = federated_results.fig5(study, RATES, {})
    return result | {"provenance": PROVENANCE, "jobs": 2}


def test_fig5_says_which_speakers_pretraining_heard_and_what_was_mended(study):
    result = fig5_of(study)
    for runs in result["pretraining"].values():
        for seed, run in enumerate(runs):
            run["speakers_also_in"] = {"dev": None, "test": 45 + seed}
    assert "an unknown number of dev and 45 to 46 of test, by seed" in fig5_report.heard_speakers(result)
    assert "**Mended:**" not in fig5_report.markdown(result)
    row = {"field": "a.b", "recorded": 0, "mended": 5, "reason": "Counted again."}
    text = fig5_report.markdown(result | {"errata": [row]})
    assert "**Mended:** `a.b` was recorded as 0; it is 5. Counted again." in text


def test_fig5_says_where_the_validation_cer_would_have_chosen_another_rate(study):
    result = fig5_of(study)
    for row in result["tuning"]:
        row["dev_cer"] = 0.9
        if (row["what"], row["arm"]) == ("encoder", SCRATCH):
            row["dev_cer"] = 0.8 if row["rate"] == 1e-3 else 0.95
    words, _ = fig5_report.learning_rates(result)
    assert "Every rate was tried on one seed" in words
    said = "otherwise: encoder on scratch 0.001 (CER 80.0 %) in place of 0.003 (95.0 %)."
    assert said in words


def test_supervised_operations_are_those_of_its_own_configuration():
    import dataclasses

    from experiments.costs.step.flops import recognition_flops_per_second
    from w2v_jax.recognition.ctc import RecognizerConfig
    from w2v_jax.recognition.heads import HeadConfig

    small = TINY.replace(num_layers=1)
    counts = [
        recognition_flops_per_second(
            dataclasses.asdict(RecognizerConfig(model=model, head=HeadConfig(num_tokens=28, width=32)))
        )
        for model in (small, TINY)
    ]
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "0"], "--seeds must be between 1 and 100, got 0"),
        (["--jobs", "0"], "--jobs must be between 1 and 64, got 0"),
        (["--scale", "paper"], "--scale paper needs --data"),
        (["--data", "nowhere"], "no such folder: nowhere"),
    ],
)
@pytest.mark.parametrize("command", ["fig1", "fig5"])
def test_mistakes_are_one_line(command, words, said, capsys, tmp_path):
    assert cli.main(["reproduce", command, *words, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_smoke_runs_end_to_end_and_figures_share_their_runs(tmp_path, capsys):
    out = tmp_path / "federated"
    words = ["--scale", "smoke", "--seeds", "1", "--jobs", "2", "--out", str(out)]
    assert cli.main(["reproduce", "fig5", *words]) == 0
    runs = sorted(path.name for path in (out / "cells").iterdir() if path.is_dir())
    assert cli.main(["reproduce", "fig1", *words]) == 0
    assert sorted(path.name for path in (out / "cells").iterdir() if path.is_dir()) == runs
    for name in ("fig1", "fig5"):
        assert (out / f"{name}.md").read_text().startswith("# Figure")
        assert (out / f"{name}.png").stat().st_size > 10_000
