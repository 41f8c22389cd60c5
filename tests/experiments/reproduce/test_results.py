"""The results that docs/results keeps are such as they are said to be."""

import pytest

from experiments.bench.rounds.command import RUNNERS
from experiments.bench.rounds.report import counted
from experiments.costs.devices.timings import read_timings
from experiments.feasibility import report as feasibility_report
from experiments.pretrain.compare import above_untrained
from experiments.process.files import read_json
from experiments.report.statistics import shown_sign
from experiments.reproduce import (
    fig1_report,
    fig2,
    fig3,
    fig4,
    section41,
    table1,
    table2,
)
from experiments.reproduce.fig5 import report as fig5_report
from experiments.reproduce.fig5 import sentences as fig5_sentences
from experiments.reproduce.frontier import report as frontier_report
from experiments.reproduce.frontier.report import growth_of
from experiments.study import length_report
from experiments.study.curves import NO_DIFFERENCE, verdict
from experiments.study.federated_scales import FEDERATED, PRETRAINED, SCRATCH
from experiments.study.length_report import by_length
from experiments.study.mechanism import report as mechanism_report
from tests.paths import ROOT
from w2v_jax import memory_methods

RESULTS = ROOT / "docs" / "results"

DRAWN = {
    "feasibility": feasibility_report.markdown,
    "table1": table1.markdown,
    "fig2": fig2.markdown,
    "fig3": fig3.markdown,
    "fig4": fig4.markdown,
    "table2": table2.markdown,
    "section41": section41.markdown,
    "frontier": frontier_report.markdown,
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_kept_report_is_what_is_drawn_from_its_numbers(name):
    kept = (RESULTS / name / f"{name}.md").read_text(encoding="utf-8")
    assert DRAWN[name](read_json(RESULTS / name / f"{name}.json")) == kept


def test_what_was_learnt_on_recorded_speech():
    rows = {row["run"]: row for row in read_json(RESULTS / "pretraining" / "compare.json")["rows"]}
    runs = {f"{n}-clients, {rule}" for n in ("ten", "hundred") for rule in ("fedavg", "loss-weighted")}
    assert set(rows) == runs | {"centralised"}
    for row in rows.values():
        assert row["contrastive"] < row["untrained_contrastive"]
        assert row["code_perplexity"] > 40
        assert above_untrained(row) > 5
        assert row["skipped_clients"] == 0
        assert "+" not in row["commit"], "made from a changed tree"
    ten = rows["ten-clients, fedavg"]
    assert ten["accuracy"] > 3 * ten["chance_accuracy"]
    assert ten["accuracy"] > 3 * ten["shuffled_accuracy"]


def test_data_at_common_voices_size():
    result = read_json(RESULTS / "bench-data" / "data.json")
    first = result["first_batch"]
    assert (first["clips"], first["speakers"]) == (200_000, 6000)
    for part in ("prepare", "first_batch", "throughput_short", "throughput_long"):
        assert result[part]["peak_bytes"] < 1e9
    assert first["first_batch_seconds"] < 10
    assert first["partition_10_spread"] < 0.02
    assert first["partition_100_spread"] < 0.05
    for part in ("throughput_short", "throughput_long"):
        assert all(result[part][kind]["audio_seconds_per_second"] >= 2000 for kind in ("crops", "buckets"))


@pytest.mark.parametrize("clients", [8, 32, 100])
@pytest.mark.parametrize("workload", ["toy", "tiny"])
def test_rounds_beside_peers(workload, clients):
    result = read_json(RESULTS / "bench-rounds" / "rounds.json")
    assert result["absent"] == []
    assert "changes" not in result["provenance"]["commit"]
    rows = counted(result, workload, clients)
    # Flower's last round of a hundred tiny clients went without some of them. BlazeFL came later, and needs a
    # Python that was not there.
    without = {"blazefl"} | ({"flower"} if (workload, clients) == ("tiny", 100) else set())
    assert set(rows) == set(RUNNERS) - without
    assert all(row["parameters_agree"] and row["device"] == "cpu" for row in rows.values())
    assert next(iter(rows)) == "ours"
    peers = [row for name, row in rows.items() if name not in ("ours", "sequential")]
    ratio = min(row["seconds_per_round"] for row in peers) / rows["ours"]["seconds_per_round"]
    # Half as fast again was asked for: the toy has it, tiny has not.
    assert ratio > (1.5 if workload == "toy" else 1.1)
    assert rows["ours"]["layout"]["chunk"] == 1


def test_a_step_of_base_beside_torch():
    rows = {
        row["runner"]: row["seconds_per_round"]
        for row in read_json(RESULTS / "bench-rounds" / "step.json")["rows"]
        if row["counts"]
    }
    assert rows["torch_fp32"] > 1.2 * rows["ours_fp32"]
    assert rows["torch_fp32"] > 2.0 * rows["ours_bf16"]


@pytest.mark.parametrize("clients", [8, 32, 100])
def test_fedjax_is_faster_vmapped_without_convolutions_alone(clients):
    result = read_json(RESULTS / "bench-rounds" / "fedjax.json")
    ratio = {}
    for workload in ("dense", "toy"):
        rows = counted(result, workload, clients)
        assert rows["fedjax_vmap"]["distance"] < 1e-6
        ratio[workload] = rows["fedjax_jit"]["seconds_per_round"] / rows["fedjax_vmap"]["seconds_per_round"]
    assert ratio["dense"] > 1.2
    assert ratio["toy"] < 1.0


def test_memory_does_not_grow_with_population_or_cohort():
    rows = read_json(RESULTS / "bench-cohorts" / "cohorts.json")["rows"]
    first, last = rows[0], rows[-1]
    assert (last["population"], last["cohort"]) == (100_000, 1000)
    assert first["cohort"] == first["lanes"] * first["chunk"]
    assert last["peak_bytes"] < 1.1 * first["peak_bytes"]
    # Linear: a client takes as long in a thousand as in a hundred.
    each = {row["cohort"]: row["seconds_per_round"] / row["cohort"] for row in rows[1:]}
    assert each[1000] == pytest.approx(each[100], rel=0.2)


def test_compiling_bases_round():
    rows = read_json(RESULTS / "bench-compile" / "compile.json")["rows"]
    cold = rows["cold"]
    assert cold["trace_seconds"] + cold["lower_seconds"] + cold["compile_seconds"] < 30
    assert rows["cached"]["compile_seconds"] < 0.1 * cold["compile_seconds"]


@pytest.mark.parametrize("clients", [1, 4, 8, 16])
def test_the_automatic_layout_was_the_fastest_within_the_spread(clients):
    rows = read_json(RESULTS / "bench-clients" / "clients.json")["rows"]
    ratios = {row["method"]: row["ratio_to_auto_p90"] for row in rows if row["clients"] == clients}
    assert set(ratios) == {"loop", "vmap_lax", "vmap", "auto"}
    assert min(ratios.values()) >= 1.0


@pytest.mark.parametrize("setting", ["base-1x5.5", "base-4x5.5", "base-2x12"])
def test_xlas_total_was_within_ten_percent_of_the_measured_peak(setting):
    result = read_json(RESULTS / "profile" / setting / "profile.json")
    plan, measured = result["compiled"]["plan"]["total"], result["measured"]["peak_bytes"]
    assert measured == pytest.approx(plan, rel=0.1)
    assert result["compiled"]["timeline"]["peak_bytes"] == pytest.approx(plan, rel=0.01)
    assert "changes" not in result["provenance"]["commit"]


def test_the_figure_of_memory_stands_beside_what_is_printed():
    result = read_json(RESULTS / "fig2" / "fig2.json")
    known = {(4, 5.5): (2.54e9, 3), (8, 12.0): (9.89e9, 3)}
    for row in result["settings"]:
        printed, first = known[row["batch"], row["seconds"]]
        assert row["printed_bytes"] == printed
        assert {"autograd", "residuals", "xla"} <= set(row["accountings"])
        # The paper's shape: among the layers of the network, the first of the CNN stand out.
        kept = {layer["layer"]: layer["autograd_bytes"] for layer in row["layers"]}
        network = {name: size for name, size in kept.items() if name.startswith(("conv", "layers"))}
        assert sorted(network, key=network.__getitem__)[-2:] == ["conv_layers_1", "conv_layers_0"]
        assert len([name for name in network if name.startswith("conv")]) > first
    assert max(map(abs, result["closest"]["errors"][result["closest"]["name"]])) < 0.2


def test_length_and_precision():
    fits = read_json(RESULTS / "fig3" / "fig3.json")["fits"]
    for curves in fits.values():
        assert curves["flops_paper"]["quadratic_share"] == pytest.approx(0, abs=1e-3)
        assert 0.1 < curves["flops_full"]["quadratic_share"] < 0.3
        assert curves["autograd_bytes"]["quadratic_share"] > 0.3
    rows = read_json(RESULTS / "fig4" / "fig4.json")["rows"]
    assert {(row["model"], row["precision"]) for row in rows} == {
        (model, precision) for model in ("base", "large") for precision in ("fp32", "mixed")
    }
    assert {min(row["seconds"] for row in rows), max(row["seconds"] for row in rows)} == {1.0, 30.0}


def test_plans_for_boards():
    rows = read_json(RESULTS / "plans" / "plans.json")["rows"]
    capabilities = {row["compute_capability"] for row in rows}
    assert capabilities == {"7.2", "8.7"}
    for capability in capabilities:
        for batch, seconds in ((4, 5.5), (8, 12.0)):
            plans = {
                (row["precision"], row["method"]): row["plan"]["total"]
                for row in rows
                if (row["compute_capability"], row["batch"], row["seconds"]) == (capability, batch, seconds)
            }
            assert set(plans) == {(p, m) for p in ("fp32", "bf16") for m in ("plain", "remat", "exact")}
            assert plans["fp32", "remat"] < 0.5 * plans["fp32", "plain"]
            assert plans["fp32", "exact"] < 1.25e9
            if batch == 8:
                (of_large,) = (
                    row["plan"]["total"]
                    for row in read_json(RESULTS / "plans-large" / "plans.json")["rows"]
                    if (row["compute_capability"], row["batch"], row["precision"], row["method"])
                    == (capability, 8, "fp32", "exact")
                )
                assert of_large < 3.5e9


def frontier_rows(section):
    return read_json(RESULTS / "frontier" / "frontier.json")["sections"][section]


def test_the_memory_wall():
    """Base, 8 x 12 s: 9.89 GB in the paper."""
    rows = {(row["model"], row["method"], row["optimizer"]): row for row in frontier_rows("desired")}
    exact = rows["base", "exact", "sgd"]
    assert exact["above_idle_bytes"] <= 1.25e9
    assert exact["step_seconds"] <= 1.5 * rows["base", "plain", "sgd"]["step_seconds"]
    assert rows["base", "exact", "adamw"]["above_idle_bytes"] <= 2.0e9
    assert rows["large", "exact", "sgd"]["above_idle_bytes"] <= 3.5e9
    for row in rows.values():
        assert row["gradient_error"] < 1e-5
        assert row["above_idle_bytes"] < row["compiling_above_idle_bytes"]


def test_memory_hardly_grows():
    for of in ("above_idle_bytes", "plan_bytes"):
        growth = growth_of(frontier_rows("growth"), of)
        assert growth["batch"] < 1.1
        assert growth["exact"] < 1.8 < growth["plain"]


def test_out_of_memory_again():
    cells = read_json(RESULTS / "frontier" / "frontier.json")["cells"]
    assert len(cells) == 7
    plain = [cell["plain_verdict"] for cell in cells]
    assert (plain.count("too large"), plain.count("borderline")) == (3, 4)
    assert all(cell["exact_verdict"] == cell["measured_verdict"] == "fits" for cell in cells)


@pytest.mark.parametrize("model", ["base", "large"])
def test_methods_trade_memory_for_time(model):
    rows = [row for row in frontier_rows("frontier") if row["model"] == model]
    assert all(row["gradient_error"] < 1e-5 for row in rows if memory_methods.is_exact(row["method"]))
    leanest = min(
        (
            row
            for row in rows
            if row["optimizer"] == "sgd"
            and memory_methods.is_exact(row["method"])
            and not memory_methods.is_layerwise(row["method"])  # which does not clip
        ),
        key=lambda row: row["above_idle_bytes"],
    )
    assert leanest["method"] == "exact"


def test_table_2_is_predicted_as_it_is_said_to_be():
    result = read_json(RESULTS / "table2" / "table2.json")
    errors, memory = result["errors"], result["memory"]
    assert errors["model"]["median"] <= 0.15
    assert errors["model"]["median"] < errors["additive_single"]["median"]
    assert (memory["printed_oom"], memory["printed_oom_predicted"], memory["printed_oom_borderline"]) == (
        7,
        3,
        4,
    )
    assert (memory["timed"], memory["timed_predicted_oom"], memory["timed_borderline"]) == (25, 0, 0)
    assert all(row["verdict"] != "unknown" for row in result["rows"])


def test_are_we_there_yet():
    result = read_json(RESULTS / "feasibility" / "feasibility.json")
    verdicts = {row["device"]: row for row in result["verdicts"]}
    assert {"rpi-4", "xavier-nx", "xavier-agx", "orin-nx", "orin-agx", "thor", "a15-paper"} <= set(verdicts)
    assert verdicts["xavier-nx"]["compute"] == pytest.approx(0.21 / 1.14)
    assert verdicts["xavier-nx"]["memory"] < 1 < verdicts["xavier-nx"]["memory_remat"]
    assert verdicts["xavier-agx-paper"]["memory"] < 1 < verdicts["xavier-agx"]["memory"]
    assert verdicts["xavier-agx-paper"]["compute"] == verdicts["xavier-agx"]["compute"]
    assert verdicts["a15-paper"]["compute"] is None
    assert {row["verdict"] for row in result["rows"]} == {"fits", "borderline", "too large", "unknown"}
    projected = read_json(RESULTS / "section41" / "section41.json")["projected"]["xavier-nx"]["years"]
    assert [round(years, 1) for years in projected] == [3.7, 4.1]


def test_an_exported_step_ran_on_another_processor():
    measured = read_timings(RESULTS / "boards" / "tiny-emulated-aarch64.json")
    assert measured.record["board"]["machine"] == "aarch64"
    assert measured.record["probe"]["passed"]
    assert measured.seconds is not None


def test_what_loss_weighting_was_found_to_reward():
    result = read_json(RESULTS / "mechanism" / "mechanism.json")
    assert (result["seeds"], len(result["rows"])) == (3, 42)
    assert "changes" not in "".join(result["provenance"]["cell_commits"])
    groups = {(g["condition"], g["rule"], g["temperature"]): g for g in result["groups"]}
    # What docs/results/README.md says of them.
    assert groups["clean", "loss-weighted", 1.0]["effective_clients"]["mean"] > 9.9
    silent = groups["quiet", "loss-weighted", 1.0]["spoilt_share"]
    assert sum(share > 0.2 for share in silent["by_seed"]) == 2
    lower = [
        row["heldout_contrastive"]["by_seed"] for row in result["comparisons"] if row["against"] == "fedavg"
    ]
    assert not any(all(value < 0 for value in by_seed) for by_seed in lower)
    for group in result["groups"]:
        assert group["heldout_loss_with_codes"]["mean"] > 0.6


def test_federated_pretraining_teaches_something():
    result = read_json(RESULTS / "fig5" / "fig5.json")
    assert (result["scale"], result["seeds"], len(result["finetuning"]), len(result["budgets"])) == (
        "small",
        3,
        6,
        2,
    )
    assert "changes" not in "".join(result["provenance"]["cell_commits"])
    # What docs/results/README.md says of them: 58 differences are judged together, and two are shown.
    number, held = fig5_sentences.comparisons(result), fig5_sentences.differences(result)
    assert number == 58
    shown = {name for name, value in held.items() if verdict(value, number) != NO_DIFFERENCE}
    assert shown == {
        "probe, 10 clients, loss-weighted minus random, test loss",
        "probe, 100 clients, fedavg minus random, test loss",
    }
    assert sum(verdict(value, 1) != NO_DIFFERENCE for value in held.values()) == 9
    compared = {(c["kind"], c["arm"], c["against"]): c for c in result["comparisons"] if "minutes" not in c}
    for arm in PRETRAINED:
        for other in ("log-mel", "random"):
            assert all(value < 0 for value in compared["probes", arm, other]["loss"]["by_seed"])
        assert compared["finetuning", arm, SCRATCH]["cer"]["mean"] < -0.06
    above = [arm for arm in PRETRAINED if compared["finetuning", arm, SCRATCH]["loss"]["mean"] > 0]
    assert above == ["hundred-clients-fedavg"]
    assert min(row["wer"] for rows in result["finetuning"].values() for row in rows) > 0.98


@pytest.mark.parametrize("name", ["fig1", "fig5"])
def test_the_kept_record_of_heard_speakers_is_mended(name):
    result = read_json(RESULTS / name / f"{name}.json")
    for runs in result["pretraining"].values():
        assert [run["speakers_also_in"]["dev"] for run in runs] == [5, 5, 7]
        assert [run["speakers_also_in"]["test"] for run in runs] == [49, 48, 45]
    (row,) = result["errata"]
    text = (RESULTS / name / f"{name}.md").read_text()
    assert f"`{row['field']}` was recorded as 0 in every seed; it is 5, 5 and 7 in seeds 0, 1 and 2." in text


@pytest.mark.parametrize(
    ("name", "markdown"),
    [
        ("fig1", fig1_report.markdown),
        ("fig5", fig5_report.markdown),
        ("mechanism", mechanism_report.markdown),
        ("length", length_report.markdown),
    ],
)
def test_kept_reports_are_those_of_their_numbers(name, markdown):
    result = read_json(RESULTS / name / f"{name}.json")
    assert (RESULTS / name / f"{name}.md").read_text() == markdown(result)


def test_what_federated_training_needs_to_come_as_far():
    result = read_json(RESULTS / "fig1" / "fig1.json")
    assert result["seeds"] == 3
    half = next(target for target in result["targets"] if target["share"] == 0.5)
    whole = next(target for target in result["targets"] if target["share"] == 1.0)
    for arm in FEDERATED:
        assert half["arms"][arm]["reached"] == 3
        assert 2.5 < half["arms"][arm]["audio_seconds_ratio"]["mean"] < 4
        assert half["arms"][arm]["updates_ratio"]["mean"] < 0.35
        assert whole["arms"][arm]["reached"] == 0
        assert 0.6 < result["share_of_centralised_drop"][arm]["mean"] < 0.8
        assert max(result["share_of_centralised_drop"][arm]["by_seed"]) < 1
    behind = fig1_report.behind_centralised(result)
    assert not any(shown_sign(value["by_seed"], len(behind)) for value in behind.values())
    compute = result["compute"]
    assert compute["pretraining"]["flops"] > 4 * compute["supervised"]["flops"]


def test_what_length_does():
    result = read_json(RESULTS / "length" / "length.json")
    assert (result["seeds"], len(result["rows"])) == (3, 12)
    assert "changes" not in "".join(result["provenance"]["cell_commits"])
    # What docs/results/README.md says of them.
    assert "0 of the 18 differences (6 pairs of lengths, 3 values) are shown." in length_report.sentences(
        result
    )
    seconds = [length["mean"] for length in by_length(result, "seconds_per_audio_second")]
    assert 3.5 < seconds[-1] / seconds[0] < 4
    assert result["costs"][-1]["flops_per_crop_second"] == pytest.approx(
        1.33 * result["costs"][0]["flops_per_crop_second"], rel=0.01
    )


def test_italian_is_written_by_ear():
    kept, folded = (read_json(RESULTS / "italian" / f"{kind}.json") for kind in ("keep", "fold"))
    for result in (kept, folded):
        assert "changes" not in result["provenance"]["commit"]
        assert result["test"]["utterances"] == 50
        assert result["test"]["cer"] < 0.4
        assert result["test"]["wer"] > 0.9
