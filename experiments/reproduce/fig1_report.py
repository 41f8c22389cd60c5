"""fig1.md and fig1.png: every sentence is worked out from the numbers beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.statistics import mean_spread
from experiments.report.tables import table
from experiments.study.curves import band, cores_of, label
from experiments.study.federated import CENTRALISED, FEDERATED, PRETRAINED


def draw(result: dict[str, Any], path: Path) -> None:
    """Held-out loss against updates and audio, and operations against what they bought."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(13, 9), layout="constrained")
    axes = grid.flat
    loss, codes = "held-out contrastive loss, nats", "perplexity of the codes in use"
    for axis, x, y, title, words in (
        (axes[0], "updates", "loss", "Pre-training against updates", "sequential updates of a model"),
        (
            axes[1],
            "audio_seconds",
            "loss",
            "Pre-training against audio",
            "seconds of audio heard by all clients",
        ),
        (
            axes[2],
            "audio_seconds",
            "code_perplexity",
            "Codes behind that loss",
            "seconds of audio heard by all clients",
        ),
    ):
        for arm in PRETRAINED:
            band(axis, result["pretraining"][arm], x, y, arm)
        axis.set(title=title, xlabel=words, ylabel=loss if y == "loss" else codes)
        axis.legend(fontsize=8)
    flops = result["compute"]["supervised"]["flops_per_audio_second"]
    for seed, run in enumerate(result["supervised"]):
        axes[3].plot(np.array(run["audio_seconds"]) * flops / 1e12, [100 * cer for cer in run["dev_cer"]], "o-", ms=3,
                     color="tab:gray", alpha=0.6, label="supervised, from scratch" if seed == 0 else None)  # fmt: skip
    axes[3].axvline(
        result["compute"]["pretraining"]["flops"] / 1e12, color="black", ls=":", label="a whole pre-training"
    )
    axes[3].set(title="Supervised training and its compute", xlabel="TFLOPs", ylabel="validation CER, %")
    axes[3].legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    seeds, settings, compute = result["seeds"], result["settings"], result["compute"]
    rows = []
    for target in result["targets"]:
        for arm in PRETRAINED:
            held = target["arms"][arm]
            rows.append(
                (
                    f"{100 * target['share']:.0f} %",
                    label(arm),
                    f"{held['reached']} of {seeds}",
                    mean_spread(held["updates"]["by_seed"], 0),
                    mean_spread(held["audio_seconds"]["by_seed"], 0),
                    mean_spread(held["updates_ratio"]["by_seed"], 2),
                    mean_spread(held["audio_seconds_ratio"]["by_seed"], 2),
                    mean_spread(held["code_perplexity"]["by_seed"], 0),
                )
            )
    names = {"pretraining": "pre-training (self-supervised)", "supervised": "supervised, from scratch"}
    costs = [
        (
            names[kind],
            f"{held['flops_per_audio_second'] / 1e9:.2f}",
            mean_spread(held["audio_seconds"]["by_seed"], 0),
            f"{held['flops'] / 1e12:.1f}",
        )
        for kind, held in compute.items()
    ]
    made = result["provenance"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    parts = [
        "# Figure 1: federated against centralised pre-training",
        f"`{settings['model']}`, scale `{result['scale']}`, {seeds} seeds; ± is their standard deviation. A "
        "centralised run is one model on all training audio; updates are those that a model goes through one "
        "after the other (rounds x local steps in federated runs, whose clients work side by side).",
        "![Figure 1](fig1.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Updates and audio to reach the centralised loss",
        "A target is a share of the way from the untrained model's held-out loss to where the centralised run of the "
        "same seed ends. It counts as reached where a curve stays at or below it to the end, since a contrastive loss "
        "falls for a while whenever few codes are in use. Ratios are to the centralised run; values between "
        "evaluations are interpolated; runs that never reach a target are left out of its means. Codes (their perplexity, "
        "of 640 at most) are those in use there. At the end, where diversity weight and Gumbel temperature have "
        "followed each model's own updates, they were "
        + "; ".join(
            f"{label(arm)} {mean_spread([run['curve']['code_perplexity'][-1] for run in result['pretraining'][arm]], 0)}"
            for arm in PRETRAINED
        )
        + ".",
        table(
            (
                "of the way",
                "arm",
                "reached",
                "updates",
                "audio, s",
                "updates, ratio",
                "audio, ratio",
                "codes",
            ),
            rows,
        ),
        "## Supervised training beside pre-training",
        table(("training", "GFLOPs a second of audio", "seconds of audio", "TFLOPs in all"), costs),
        "Operations are counted from the traced programs of loss and gradients, at full batches (recognition: utterances of "
        "4.5 s) over the speech that was heard: optimizer, padding and validation are not in them.",
        f"Commit {', '.join(made['cell_commits'])}; {made['device']}, {cores_of(made)}; {versions}.\n\n"
        f"```\n{made['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers say, one line a question."""
    seeds, found = result["seeds"], []
    for arm in FEDERATED:
        ended = result["share_of_centralised_drop"][arm]
        reached = [t for t in result["targets"] if t["arms"][arm]["reached"] == seeds]
        words = f"{label(arm)} ends {mean_spread(ended['by_seed'], 0, 100)} % of the way"
        if reached:
            last = reached[-1]
            held = last["arms"][arm]
            words += (
                f"; {100 * last['share']:.0f} % of it takes "
                f"{mean_spread(held['updates_ratio']['by_seed'], 2)} times the updates and "
                f"{mean_spread(held['audio_seconds_ratio']['by_seed'], 2)} times the audio of centralised training"
            )
        else:
            words += "; not every seed reaches the first target"
        if result["targets"][-1]["arms"][arm]["reached"] == 0:
            words += ", and no seed reaches the centralised loss itself"
        found.append(words + ".")
    compute = result["compute"]
    ratio = compute["pretraining"]["flops_per_audio_second"] / compute["supervised"]["flops_per_audio_second"]
    whole = compute["pretraining"]["flops"] / compute["supervised"]["flops"]
    cers = [run["test"]["cer"] for run in result["supervised"]]
    found.append(
        f"A second of audio costs {ratio:.2f} times as many operations in pre-training as in supervised training of "
        f"the same encoder; a whole {CENTRALISED} pre-training {whole:.2f} times a whole supervised run, which "
        f"ends at a test CER of {mean_spread(cers, 1, 100)} %."
    )
    return found
