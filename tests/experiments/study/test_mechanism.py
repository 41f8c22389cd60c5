"""The study's arithmetic on numbers made up so that the answer is known; a whole smoke study is slow."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.cli import main as cli
from experiments.data import corruption
from experiments.options import arguments
from experiments.pretrain.command import PretrainArguments, resolve
from experiments.process.files import read_json, write_json
from experiments.report.statistics import over_seeds
from experiments.study.mechanism import command as study_mechanism
from experiments.study.mechanism import report as mechanism_report
from experiments.study.mechanism import sentences as mechanism_sentences
from experiments.study.mechanism import settings as mechanism
from experiments.study.mechanism.settings import (
    CLEAN,
    LOSS_WEIGHTED,
    Setting,
    look_correlations,
    paired,
    rank_correlation,
    read_cell,
)

CLIENTS = [f"client_{number:04d}" for number in range(10)]
WEIGHTED = Setting(condition="noise", rule=LOSS_WEIGHTED, temperature=1.0)


def look(weights, own, heldout, corrupted=(), before=4.0, number=1, codes=None):
    """A line of diagnostics.jsonl."""
    codes = [50.0] * len(weights) if codes is None else codes
    clients = [
        {"client": name, "corrupted": name in corrupted, "weight": w}
        | {"own_contrastive": o, "heldout_contrastive": h, "heldout_code_perplexity": c}
        for name, w, o, h, c in zip(CLIENTS, weights, own, heldout, codes, strict=False)
    ]
    return {"round": number, "before": {"contrastive": before}, "clients": clients}


def test_fourteen_settings_each_of_its_own_name():
    names = [setting.name for setting in mechanism.settings()]
    assert len(names) == len(set(names)) == 14
    assert {"clean-fedavg", "noise-loss-weighted-t0.05", "quiet-loss-weighted-t1"} <= set(names)


def test_easy_and_good_grow_with_what_they_are_named_after():
    weights, low_to_high = [0.1, 0.2, 0.3, 0.4], [3.0, 3.1, 3.2, 3.3]
    # The heavier a client, the lower its own loss was; and the worse its local model is.
    found = look_correlations(look(weights, low_to_high[::-1], low_to_high))
    assert found["weight_with_easy"] == pytest.approx(1.0)
    assert found["weight_with_good"] == pytest.approx(-1.0)
    assert found["easy_with_good"] == pytest.approx(-1.0)


def test_what_codes_explain_is_taken_out_of_the_good():
    rng = np.random.default_rng(0)
    codes = rng.permutation(200).astype(float)
    # Weight and held-out loss both follow the codes, and nothing else.
    weights, heldout = -codes + rng.normal(0, 60, 200), codes + rng.normal(0, 60, 200)
    raw = mechanism.rank_correlation(list(weights), list(-heldout))
    partial = mechanism.partial_rank_correlation(list(weights), list(-heldout), list(codes))
    assert raw > 0.35
    assert abs(partial) < 0.15
    # Without anything to take out it is the plain one; where codes explain all, there is none.
    assert mechanism.partial_rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], [7] * 4) == pytest.approx(0.8)
    # By hand: (0.8 - 0 x 0.6) / sqrt((1 - 0) (1 - 0.36)) = 1.
    assert mechanism.partial_rank_correlation([1, 2, 3, 4], [1, 3, 2, 4], [2, 4, 1, 3]) == pytest.approx(1.0)
    assert mechanism.partial_rank_correlation([1, 2, 3], [2, 3, 1], [1, 2, 3]) is None
    found = look_correlations(look([1, 2, 3, 4], [3] * 4, [4.0, 3.8, 3.9, 3.7], codes=[3, 1, 4, 2]))
    assert found["heldout_loss_with_codes"] == rank_correlation([4.0, 3.8, 3.9, 3.7], [3, 1, 4, 2])


def test_clean_clients_are_judged_without_the_spoilt_ones():
    weights, own = [0.1, 0.2, 0.3, 0.4, 0.5], [3.3, 3.2, 3.1, 9.0, 9.1]
    found = look_correlations(look(weights, own, own, corrupted=CLIENTS[3:5]))
    assert found["weight_with_easy_clean_clients"] == pytest.approx(1.0)
    assert found["weight_with_easy"] < 0


def test_a_rank_correlation_needs_three_pairs_and_an_order():
    assert rank_correlation([1, 2, 3], [10, 20, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [1, 1, 1, 1]) is None
    assert rank_correlation([1, 2], [2, 1]) is None
    assert rank_correlation([1, None, 2, 3], [3, 9, 2, 1]) == pytest.approx(-1.0)


def test_spread_is_of_a_sample_and_missing_values_are_left_out():
    found = over_seeds([1.0, None, 3.0])
    assert found["mean"] == 2.0
    assert found["spread"] == pytest.approx(np.sqrt(2.0))
    assert over_seeds([1.0])["spread"] is None
    assert over_seeds([None])["mean"] is None


def rows(seeds=3, **values):
    """Rows of all settings; a value is a function of (setting, seed)."""
    made = []
    for setting in mechanism.settings():
        for seed in range(seeds):
            row = dataclasses.asdict(setting) | dict.fromkeys(mechanism.VALUES, 0.25)
            row |= {"seed": seed, "fair_share": 0.2, "chance_accuracy": 0.01, "untrained_contrastive": 4.7}
            row |= {"seconds": 60.0, "effective_clients": 9.0}
            made.append(row | {name: value(setting, seed) for name, value in values.items()})
    return made


def result(made):
    provenance = {"command": "w2v-jax study mechanism", "commit": "abc", "cell_commits": ["abc"], "cores": 2}
    provenance |= {"device": "2 x cpu", "versions": {"jax": "0"}, "xla_flags": ""}
    return {
        "scale": {"name": "smoke"} | dataclasses.asdict(study_mechanism.SCALES["smoke"]),
        "data": None,
        "seeds": len({row["seed"] for row in made}),
        "rows": made,
        "groups": mechanism.groups(made),
        "comparisons": mechanism.comparisons(made),
        "provenance": provenance,
    }


def test_differences_are_taken_seed_by_seed():
    def loss(setting, seed):
        return 10.0 * seed + (0.5 + 0.1 * seed if setting.rule == LOSS_WEIGHTED else 0.0)

    made = rows(heldout_contrastive=loss)
    fedavg = Setting(condition="noise", rule="fedavg")
    difference = paired(made[::-1], WEIGHTED, fedavg, "heldout_contrastive")
    np.testing.assert_allclose(difference["by_seed"], [0.5, 0.6, 0.7])
    assert difference["spread"] == pytest.approx(0.1)
    found = mechanism.comparisons(made)
    assert len(found) == 10 + 9  # loss-weighted against fedavg; spoilt against clean


@pytest.mark.parametrize(
    ("easy", "good", "expected"),
    [
        (
            0.7,
            0.1,
            "more with the easy in 3, more with the good in 0 of 3 seeds: shown to be more with the easy",
        ),
        (
            -0.2,
            0.4,
            "more with the easy in 0, more with the good in 3 of 3 seeds: shown to be more with the good",
        ),
        (None, 0.4, "weights or gains had no order to compare"),
    ],
)
def test_the_verdict_follows_the_numbers(easy, good, expected):
    made = rows(weight_with_easy_given_codes=lambda *_: easy, weight_with_good_given_codes=lambda *_: good)
    lines = [line for line in mechanism_sentences.sentences(result(made)) if "weights" in line]
    assert len(lines) == 4
    assert all(expected in line for line in lines)


def test_seeds_that_disagree_are_said_to():
    made = rows(heldout_contrastive=lambda setting, seed: (seed - 1) * (setting.rule == LOSS_WEIGHTED))
    text = mechanism_report.markdown(result(made))
    assert "lower in 1, higher in 1 of 3 seeds" in text
    assert "lower in 1, higher in 1 of 3 seeds: no difference shown" in text


def test_three_seeds_of_one_sign_show_nothing_by_themselves():
    """Chance gives three signs alike in a quarter of all comparisons."""
    made = rows(heldout_contrastive=lambda setting, seed: (1 + seed) * (setting.rule == LOSS_WEIGHTED))
    (line,) = [
        text
        for text in mechanism_sentences.sentences(result(made))
        if text.startswith("**clip**, loss-weighted, T = 1 against")
    ]
    assert "+2.0000 ± 1.0000 nats (lower in 0, higher in 3 of 3 seeds: no difference shown)" in line


@pytest.mark.parametrize(("share", "word"), [(0.05, "less"), (0.35, "more")])
def test_the_weight_of_spoilt_clients_is_held_against_their_fair_share(share, word):
    made = rows(spoilt_share=lambda setting, seed: 0.21 if setting.condition == CLEAN else share)
    start = "**clip**, loss-weighted, T = 1: spoilt"
    (line,) = [text for text in mechanism_sentences.sentences(result(made)) if text.startswith(start)]
    assert f"had {share:.3f} of the weight, {share / 0.2:.2f} times their fair 0.200 (" in line
    assert f"of 3 seeds: shown to be {word})" in line
    assert "unspoilt had 0.210" in line


@pytest.mark.parametrize("seeds", [1, 3])
def test_picture_and_page_are_made_of_any_number_of_seeds(tmp_path, seeds):
    made = result(
        rows(seeds=seeds, weight_with_good_given_codes=lambda setting, seed: None if seed == 0 else 0.1)
    )
    study_mechanism.write(made, tmp_path)
    assert (tmp_path / "mechanism.png").stat().st_size > 20_000
    page = (tmp_path / "mechanism.md").read_text()
    assert ("±" in page.split("## Weights")[1]) == (seeds > 1)
    assert read_json(tmp_path / "mechanism.json")["seeds"] == seeds


@pytest.mark.parametrize("condition", [CLEAN, "noise"])
def test_a_cell_is_read_from_its_run(tmp_path, condition):
    spoilt = corruption.choose(CLIENTS, 2, 5)
    weights = [[0.3 if client in spoilt else 0.05 for client in CLIENTS], [0.1] * 10]
    lines = [
        {"round": number, "client_ids": CLIENTS, "client_weights": w, "effective_clients": e}
        for number, (w, e) in enumerate(zip(weights, (5.0, 10.0), strict=True), start=1)
    ]
    lines[-1] |= dict.fromkeys(mechanism.RESULTS, 1.5) | {"chance_accuracy": 0.01}
    up, down = list(np.linspace(0.1, 0.4, 10)), list(np.linspace(3.4, 3.1, 10))
    looks = [look(up, down, down, number=1), look(up, down, down[::-1], number=2)]
    for name, values in (("metrics", lines), ("diagnostics", looks)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    clips = {"clients": {client: {} for client in CLIENTS}}
    if condition != CLEAN:
        clips["corruption"] = {"kind": condition, "clients": spoilt}
    write_json(tmp_path / "clips.json", clips)
    write_json(tmp_path / "untrained.json", {"contrastive": 4.7})
    write_json(tmp_path / "config.json", {"settings": {}, "provenance": {"commit": "abc"}})
    setting = dataclasses.replace(WEIGHTED, condition=condition)
    row = read_cell(tmp_path, setting, 5)
    assert row["spoilt_share"] == pytest.approx((0.6 + 0.2) / 2)
    assert row["fair_share"] == pytest.approx(0.2)
    assert row["effective_clients"] == 7.5
    assert row["heldout_contrastive"] == 1.5
    assert row["weight_with_easy"] == pytest.approx(1.0)
    assert row["weight_with_good"] == pytest.approx(0.0)  # +1 in one round, -1 in the other
    if condition != CLEAN:
        with pytest.raises(ValueError, match="not"):
            read_cell(tmp_path, setting, 7)


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_cells_are_commands_that_pretrain_takes(tmp_path, scale):
    options = study_mechanism.MechanismArguments(scale=scale, out=tmp_path)
    for setting in mechanism.settings():
        made = study_mechanism.cell(options, setting, 2)
        assert made.out == tmp_path / "cells" / f"{setting.name}-2"
        taken = resolve(arguments.parse(PretrainArguments, made.arguments[1:], "pretrain"))
        assert (taken["aggregation"], taken["temperature"]) == (setting.rule, setting.temperature or 1.0)
        assert taken["corruption"] == ("none" if setting.condition == CLEAN else setting.condition)
        assert (taken["seed"], taken["clients"], taken["clients_per_round"]) == (2, 10, 10)
        assert taken["diagnose_every"] <= taken["rounds"] == study_mechanism.SCALES[scale].rounds


def test_bad_options_end_before_any_cell(tmp_path, capfd):
    study = ["study", "mechanism", "--out", str(tmp_path / "study")]
    assert cli.main([*study, "--seeds", "0"]) == 2
    assert "--seeds must be between 1 and 100" in capfd.readouterr().err
    assert cli.main([*study, "--data", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capfd.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
def test_a_smoke_study_from_end_to_end(tmp_path):
    out = tmp_path / "study"
    assert cli.main(["study", "mechanism", "--scale", "smoke", "--seeds", "1", "--out", str(out)]) == 0
    found = read_json(out / "mechanism.json")
    assert len(found["rows"]) == 14
    spoilt = {tuple(row["spoilt_clients"]) for row in found["rows"]}
    assert len(spoilt) == 1
    for row in found["rows"]:
        assert row["seconds"] > 0
        assert all(np.isfinite(row[name]) for name in mechanism.VALUES)
    noise = {row["temperature"]: row for row in found["rows"] if row["condition"] == "noise"}
    assert noise[0.05]["effective_clients"] < noise[5.0]["effective_clients"]
    # The other rule is fedavg, whose weights are seconds of audio.
    assert 0.15 < noise[None]["spoilt_share"] < 0.25
