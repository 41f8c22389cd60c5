"""fig1.md and fig1.png: every sentence is worked out from the numbers of fig1.json."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.figures import PAGE_INCHES, legend_above, message, picture
from experiments.report.statistics import mean_spread, over_seeds, shown_sign
from experiments.report.tables import table
from experiments.study.curves import band, cores_of, label, mended
from experiments.study.federated_scales import CENTRALISED, FEDERATED, PRETRAINED


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw held-out loss against updates and audio, codes, and validation CER against operations."""
    loss, codes = "held-out contrastive loss, nats", "perplexity of the codes in use"
    updates, audio = "sequential updates of a model", "audio heard by all clients, s"
    with picture(path, 2, 2, figsize=(PAGE_INCHES, 7.5)) as grid:
        *pretraining, supervised = grid.flat
        for axis, x, y, title, words, unit in (
            (pretraining[0], "updates", "loss", "Pre-training against updates", updates, loss),
            (pretraining[1], "audio_seconds", "loss", "Pre-training against audio", audio, loss),
            (pretraining[2], "audio_seconds", "code_perplexity", "Codes behind that loss", audio, codes),
        ):
            for arm in PRETRAINED:
                band(axis, result["pretraining"][arm], x, y, arm)
            axis.set(title=title, xlabel=words, ylabel=unit)
        first = min(run["curve"]["updates"][1] for arm in PRETRAINED for run in result["pretraining"][arm])
        pretraining[0].set_xscale("symlog", linthresh=first)
        _draw_supervised(supervised, result)
        legend_above(pretraining)
        message(
            supervised,
            f"{_judgement_sentence(result)} Lines are means of {result['seeds']} seeds; bands "
            "run from the lowest to the highest seed. Updates are on a log axis. Bottom right: each line is "
            "one seed of supervised training from scratch; the dotted line is the cost of a whole "
            "pre-training.",
        )


def _draw_supervised(axis: Any, result: dict[str, Any]) -> None:
    """Draw validation CER of supervised training against its operations."""
    flops = result["compute"]["supervised"]["flops_per_audio_second"]
    for run in result["supervised"]:
        axis.plot(
            np.array(run["audio_seconds"]) * flops / 1e12,
            [100 * cer for cer in run["dev_cer"]],
            "o-",
            ms=3,
            color="tab:gray",
            alpha=0.6,
        )
    axis.axvline(result["compute"]["pretraining"]["flops"] / 1e12, color="black", ls=":")
    axis.set(
        title="Supervised training and its compute", xlabel="operations, TFLOP", ylabel="validation CER, %"
    )


def markdown(result: dict[str, Any]) -> str:
    """Make the report that readers see."""
    settings, made = result["settings"], result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    ends = "; ".join(
        f"{label(arm)} "
        f"{mean_spread([run['curve']['code_perplexity'][-1] for run in result['pretraining'][arm]], 0)}"
        for arm in PRETRAINED
    )
    parts = [
        "# Figure 1: federated against centralised pre-training",
        f"`{settings['model']}`, scale `{result['scale']}`, {result['seeds']} seeds; ± is their standard "
        "deviation. A centralised run is one model on all training audio. Updates are those that a model "
        "goes through one after the other: rounds x local steps in federated runs, whose clients work side "
        "by side.",
        *mended(result),
        "![Figure 1](fig1.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Updates and audio to reach the centralised loss",
        "A target is a share of the way from the untrained model's held-out loss to where the centralised "
        "run of the same seed ends. A curve reaches it where it comes to stay at or below it, since a "
        "contrastive loss falls for a while whenever few codes are in use. Ratios are to the centralised "
        "run. Values between evaluations are interpolated. Runs that never reach a target are left out of "
        "its means. Codes (their perplexity, of 640 at most) are those in use there. At the end, where "
        f"diversity weight and Gumbel temperature have followed each model's own updates, they were {ends}.",
        _targets_table(result),
        "## Supervised training beside pre-training",
        _costs_table(result),
        "Operations are counted from the traced programs of loss and gradients, at full batches "
        "(recognition: utterances of 4.5 s), over the speech that was heard. Optimizer, padding and "
        "validation are left out.",
        f"Commit {', '.join(made['cell_commits'])}; {made['device']}, {cores_of(made)}; {versions}.\n\n"
        f"```\n{made['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _targets_table(result: dict[str, Any]) -> str:
    columns = {
        "updates": ("updates", 0),
        "audio_seconds": ("audio, s", 0),
        "updates_ratio": ("updates, ratio", 2),
        "audio_seconds_ratio": ("audio, ratio", 2),
        "code_perplexity": ("codes", 0),
    }
    return table(
        ("of the way", "arm", "reached", *(title for title, _ in columns.values())),
        [
            (
                f"{100 * target['share']:.0f} %",
                label(arm),
                f"{target['arms'][arm]['reached']} of {result['seeds']}",
                *(
                    mean_spread(target["arms"][arm][name]["by_seed"], digits)
                    for name, (_, digits) in columns.items()
                ),
            )
            for target in result["targets"]
            for arm in PRETRAINED
        ],
    )


def _costs_table(result: dict[str, Any]) -> str:
    names = {"pretraining": "pre-training (self-supervised)", "supervised": "supervised, from scratch"}
    return table(
        ("training", "GFLOPs a second of audio", "seconds of audio", "TFLOPs in all"),
        [
            (
                names[kind],
                f"{held['flops_per_audio_second'] / 1e9:.2f}",
                mean_spread(held["audio_seconds"]["by_seed"], 0),
                f"{held['flops'] / 1e12:.1f}",
            )
            for kind, held in result["compute"].items()
        ],
    )


def behind_centralised(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Compute, by arm and over seeds, its drop in loss less the centralised one, as a share of the latter.

    A negative value means that the arm ends above the centralised loss.
    """
    found = {}
    for arm in FEDERATED:
        shares = result["share_of_centralised_drop"][arm]["by_seed"]
        found[arm] = over_seeds([None if share is None else share - 1.0 for share in shares])
    return found


def sentences(result: dict[str, Any]) -> list[str]:
    """Say what the numbers show, one line a question."""
    arms = [_arm_sentence(result, arm) for arm in FEDERATED]
    return [*arms, _judgement_sentence(result), _compute_sentence(result)]


def _arm_sentence(result: dict[str, Any], arm: str) -> str:
    seeds = result["seeds"]
    ended = result["share_of_centralised_drop"][arm]["by_seed"]
    words = f"{label(arm)} ends {mean_spread(ended, 0, 100)} % of the way"
    reached = [target for target in result["targets"] if target["arms"][arm]["reached"] == seeds]
    if reached:
        last = reached[-1]
        held = last["arms"][arm]
        words += (
            f"; {100 * last['share']:.0f} % of it takes {mean_spread(held['updates_ratio']['by_seed'], 2)} "
            f"times the updates and {mean_spread(held['audio_seconds_ratio']['by_seed'], 2)} times the "
            "audio of centralised training"
        )
    else:
        words += "; not every seed reaches the first target"
    if result["targets"][-1]["arms"][arm]["reached"] == 0:
        words += ", and no seed reaches the centralised loss itself"
    return words + "."


def _judgement_sentence(result: dict[str, Any]) -> str:
    """Say whether the federated arms are shown to end above the centralised loss."""
    behind = behind_centralised(result)
    shown = [label(arm) for arm, value in behind.items() if shown_sign(value["by_seed"], len(behind)) < 0]
    runs = [value for held in behind.values() for value in held["by_seed"] if value is not None]
    return (
        f"{sum(value < 0 for value in runs)} of {len(runs)} federated runs end above the centralised loss "
        f"of their seed. By Student's t interval over {result['seeds']} seeds, at 95 % for all "
        f"{len(behind)} comparisons together, this is shown for {len(shown)} of {len(behind)} "
        f"arms{': ' * bool(shown)}{', '.join(shown)}."
    )


def _compute_sentence(result: dict[str, Any]) -> str:
    pretraining, supervised = result["compute"]["pretraining"], result["compute"]["supervised"]
    ratio = pretraining["flops_per_audio_second"] / supervised["flops_per_audio_second"]
    cers = [run["test"]["cer"] for run in result["supervised"]]
    return (
        f"A second of audio costs {ratio:.2f} times as many operations in pre-training as in supervised "
        f"training of the same encoder; a whole {CENTRALISED} pre-training costs "
        f"{pretraining['flops'] / supervised['flops']:.2f} times a whole supervised run, which ends at a "
        f"test CER of {mean_spread(cers, 1, 100)} %."
    )
