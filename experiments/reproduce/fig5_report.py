"""fig5.md, fig5.png and fig5-fairness.png: every sentence is worked out from the numbers beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.statistics import mean_spread, over_seeds, signed
from experiments.report.tables import table
from experiments.study.curves import band, cores_of, direction, errorbars, label, points, verdict
from experiments.study.federated import (
    ARMS,
    BUDGET_ARMS,
    CENTRALISED,
    FEDERATED,
    PRETRAINED,
    PROBED,
    SCRATCH,
    TUNED_ON,
)

# Directions that the paper prints for Figure 5 (facts): (better, worse).
PAPER_DIRECTIONS = (
    ("ten-clients-fedavg", "hundred-clients-fedavg", "10 clients converge faster than 100"),
    ("ten-clients-loss-weighted", "hundred-clients-loss-weighted", "10 clients converge faster than 100"),
    ("ten-clients-loss-weighted", "ten-clients-fedavg", "loss weighting beats FedAvg, 10 clients"),
    ("hundred-clients-loss-weighted", "hundred-clients-fedavg", "loss weighting beats FedAvg, 100 clients"),
)


HARDLY_RECOGNISED = 0.9  # WER


def draw(result: dict[str, Any], path: Path) -> None:
    """Pre-training curves on top, error rates after fine-tuning below."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplot_mosaic(
        [
            ["ten", "ten", "ten", "hundred", "hundred", "hundred"],
            ["wer", "wer", "cer", "cer", "loss", "loss"],
        ],
        figsize=(16, 9),
        layout="constrained",
    )
    tops = [axes["ten"], axes["hundred"]]
    for axis, clients in zip(tops, ("ten", "hundred"), strict=True):
        for arm in (CENTRALISED, *(arm for arm in FEDERATED if arm.startswith(clients))):
            band(axis, result["pretraining"][arm], "round", "loss", arm)
        axis.set(
            title=f"Pre-training, {'10' if clients == 'ten' else '100'} clients",
            xlabel="round (each arm hears as much audio a round)",
            ylabel="held-out contrastive loss, nats",
        )
        axis.legend()
    low = min(axis.get_ylim()[0] for axis in tops)
    high = max(axis.get_ylim()[1] for axis in tops)
    for axis in tops:
        axis.set_ylim(low, high)
    for name, title, unit, scale in (
        ("wer", "WER", "%", 100.0),
        ("cer", "CER", "%", 100.0),
        ("loss", "Loss", "nats a character", 1.0),
    ):
        points(axes[name], result["finetuning"], ARMS, name, scale)
        axes[name].set(title=f"{title} on test after fine-tuning", ylabel=unit)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_fairness(result: dict[str, Any], path: Path) -> None:
    """Probes, budgets of labels, and error rates against pre-training time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 3, figsize=(17, 9), layout="constrained")
    cer, loss = ("cer", "test CER, %", 100.0), ("loss", "test loss, nats a character", 1.0)
    points(grid[0, 0], result["probes"], PROBED, "loss", scale=1.0)
    grid[0, 0].set(title="Linear CTC probe on frozen features", ylabel=loss[1])

    minutes = [*map(float, result["budgets"]), result["train_minutes"]]
    for axis, (name, unit, scale) in zip(grid[:, 1], (cer, loss), strict=True):
        for arm in BUDGET_ARMS:
            rows = [*(result["budgets"][m][arm] for m in result["budgets"]), result["finetuning"][arm]]
            errorbars(axis, minutes, rows, name, arm, scale)
        axis.set(title="Fine-tuning on fewer labels", xlabel="minutes of transcribed speech", ylabel=unit,
                 xscale="log")  # fmt: skip
        axis.set_xticks(minutes, [f"{value:.0f}" for value in minutes])
        axis.minorticks_off()
        axis.legend()
    for axis, kind, what, (name, unit, scale) in (
        (grid[1, 0], "probe", "Probe", loss),
        (grid[0, 2], "finetune", "Fine-tuning", cer),
        (grid[1, 2], "finetune", "Fine-tuning", loss),
    ):
        for arm in result["trend"][kind]:
            by_round = trend(result, kind, arm)
            errorbars(axis, list(by_round), list(by_round.values()), name, arm, scale)
        axis.set(
            title=f"{what} against pre-training time", xlabel="rounds of pre-training (0: none)", ylabel=unit
        )
        axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def markdown(result: dict[str, Any]) -> str:
    """What readers see."""
    seeds, fine, settings = result["seeds"], result["finetuning"], result["settings"]
    data = f"`{Path(result['data']).parent.name}/{Path(result['data']).name}`"
    parts = [
        "# Figure 5: federated pre-training, and what recognition makes of it",
        f"`{settings['model']}` on {data}, scale `{result['scale']}`, {seeds} seeds of every cell; "
        "± is their standard deviation. Every arm hears the same audio a round, "
        f"{settings['rounds']} rounds in all ("
        + "; ".join(f"{preset} {' '.join(words)}" for preset, words in settings["local_work"].items())
        + f"). Fine-tuning is on {result['train_minutes']:.1f} minutes, scored on the {result['test_words']} words of "
        "the test split. As in the paper, "
        "pre-training hears `validated`, which holds the test speakers' audio too (without transcripts).",
        "The paper prints the figure but no table of it: only directions can be compared.",
        "![Figure 5](fig5.png)",
        "## What the numbers say",
        "\n".join(f"- {sentence}" for sentence in sentences(result)),
        "## Fine-tuning",
        table(
            ("arm", "WER, %", "CER, %", "test loss", "empty", "held-out loss of pre-training", "codes in use",
             "effective clients"),
            [
                (
                    label(arm),
                    mean_spread([row["wer"] for row in fine[arm]], 1, 100),
                    mean_spread([row["cer"] for row in fine[arm]], 1, 100),
                    mean_spread([row["loss"] for row in fine[arm]], 3),
                    mean_spread([row["empty_hypotheses"] for row in fine[arm]], 0),
                    _pretrained(result, arm, lambda run: run["curve"]["loss"][-1], 3),
                    _pretrained(result, arm, lambda run: run["curve"]["code_perplexity"][-1], 0),
                    _pretrained(result, arm, lambda run: run["effective_clients"], 1),
                )
                for arm in ARMS
            ],
        ),
        "A contrastive loss is easier to lower where fewer codes are in use (their perplexity, of 640 at most): it is "
        "to be read beside them, and beside what recognition makes of the encoder.",
        *learning_rates(result),
        "## Differences, seed by seed",
        "Negative: the first is better. `beyond the spread`: the mean difference is larger than its standard "
        "deviation over seeds, and every seed agrees.",
        table(
            ("what", "arm", "minus", "CER, points", "WER, points", "loss", "CER beyond the spread",
             "loss beyond the spread"),
            [
                (
                    {"finetuning": "fine-tuning", "probes": "probe"}[row["kind"]]
                    + (f", {row['minutes']:g} minutes" if "minutes" in row else ""),
                    label(row["arm"]),
                    label(row["against"]),
                    signed(row["cer"], 2, 100),
                    signed(row["wer"], 2, 100),
                    signed(row["loss"], 3),
                    verdict(row["cer"]),
                    verdict(row["loss"]),
                )
                for row in result["comparisons"]
            ],
        ),
        "## Behind the averages",
        "Means over clients at the last look: cosine of a client's update to the weighted mean and to the others' plain "
        "mean; held-out loss and codes in use of clients' local models, and of the model after averaging.",
        table(
            ("arm", "cosine to the mean", "to the others", "local loss", "averaged loss", "local codes", "averaged codes"),
            [
                (label(arm), *(
                    mean_spread([run["looks"][-1][name] if run["looks"] else None
                                 for run in result["pretraining"][arm]], digits)
                    for name, digits in (("cosine_to_mean", 2), ("cosine_to_others", 2), ("local_loss", 3),
                                         ("averaged_loss", 3), ("local_codes", 0), ("averaged_codes", 0))
                ))
                for arm in FEDERATED
            ],
        ),
        "Diversity weight and Gumbel temperature follow the number of updates that a model goes through, which "
        "differs between arms at equal audio.",
        "## Is pre-training judged fairly?",
        "![probes, budgets, trend](fig5-fairness.png)",
        table(
            ("linear probe on", "CER, %", "test loss"),
            [
                (
                    label(arm),
                    mean_spread([row["cer"] for row in result["probes"][arm]], 1, 100),
                    mean_spread([row["loss"] for row in result["probes"][arm]], 3),
                )
                for arm in PROBED
            ],
        ),
        table(
            ("minutes of labels", *(f"{label(arm)}: CER, %" for arm in BUDGET_ARMS),
             *(f"{label(arm)}: loss" for arm in BUDGET_ARMS)),
            [
                (
                    name,
                    *(mean_spread([row["cer"] for row in rows[arm]], 1, 100) for arm in BUDGET_ARMS),
                    *(mean_spread([row["loss"] for row in rows[arm]], 3) for arm in BUDGET_ARMS),
                )
                for name, rows in (*result["budgets"].items(), (f"{result['train_minutes']:.0f}, all", fine))
            ],
        ),
        table(
            (
                "pre-trained for",
                *(f"{label(arm)}: CER, %" for arm in result["trend"]["finetune"]),
                *(f"{label(arm)}: test loss" for arm in result["trend"]["finetune"]),
                *(f"{label(arm)}: probe's loss" for arm in result["trend"]["probe"]),
            ),
            _trend_rows(result),
        ),
        _made(result),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def trend(result: dict[str, Any], kind: str, arm: str) -> dict[int, list[dict[str, Any]]]:
    """An arm's rows by rounds of pre-training, from none (scratch, or a random encoder) to all."""
    none, whole = {
        "finetune": (result["finetuning"][SCRATCH], result["finetuning"]),
        "probe": (result["probes"]["random"], result["probes"]),
    }[kind]
    between = {int(at_round): rows for at_round, rows in result["trend"][kind][arm].items()}
    return {0: none, **between, result["settings"]["rounds"]: whole[arm]}


def _trend_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    columns = [
        [
            mean_spread([row[name] for row in rows], digits, scale)
            for rows in trend(result, kind, arm).values()
        ]
        for kind, name, digits, scale in (
            ("finetune", "cer", 1, 100.0),
            ("finetune", "loss", 3, 1.0),
            ("probe", "loss", 3, 1.0),
        )
        for arm in result["trend"][kind]
    ]
    arm = next(iter(result["trend"]["probe"]))
    rounds = [f"{number} rounds" for number in trend(result, "probe", arm)]
    return list(zip(rounds, *columns, strict=True))


def learning_rates(result: dict[str, Any]) -> list[str]:
    """What was tried on the first seed, what was chosen, and whether that lies at an edge."""
    settings = result["settings"]
    chosen, rows = result["learning_rates"], []
    for row in result["tuning"]:
        taken = chosen[row["what"]][row["arm"]] == row["rate"]
        found = f"{row['dev_loss']:.3f}" if "dev_loss" in row else "diverged"
        cer = f"{100 * row['dev_cer']:.1f}" if "dev_cer" in row else ""
        rows.append(
            (row["what"], label(row["arm"]), f"{row['rate']:g}", found, cer, "chosen" if taken else "")
        )
    edges = [
        f"{what} on {label(arm)}"
        for what, tried in (("encoder", settings["rates"]), ("probe", settings["probe_rates"]))
        for arm, rate in chosen[what].items()
        if rate in (min(tried), max(tried))
    ]
    words = (
        f"Learning rates and checkpoints are chosen by {settings['select_by']} on the validation split. Rates are "
        f"tried on the first seed: from scratch apart, and on {label(TUNED_ON)} for all pre-trained encoders."
    )
    if edges:
        words += f" At the edge of those tried: {', '.join(edges)}."
    headers = ("tuned", "on", "learning rate", "validation loss", "validation CER, %", "")
    return [words, table(headers, rows)]


def sentences(result: dict[str, Any]) -> list[str]:
    """What the numbers say, one line a question."""
    found = []
    whole = [r for r in result["comparisons"] if "minutes" not in r]
    fine = {(r["arm"], r["against"]): r for r in whole if r["kind"] == "finetuning"}
    probe = {(r["arm"], r["against"]): r for r in result["comparisons"] if r["kind"] == "probes"}
    for better, worse, words in PAPER_DIRECTIONS:
        difference = over_seeds(
            [
                a["curve"]["loss"][-1] - b["curve"]["loss"][-1]
                for a, b in zip(result["pretraining"][better], result["pretraining"][worse], strict=True)
            ]
        )
        error = fine[better, worse]["cer"]
        found.append(
            f"The paper: {words}. Here {label(better)} minus {label(worse)}: held-out loss "
            f"{signed(difference, 4)} ({direction(difference)}), CER {signed(error, 2, 100)} points "
            f"({direction(error)}), test loss {signed(fine[better, worse]['loss'], 3)} "
            f"({direction(fine[better, worse]['loss'])})."
        )
    for arm in FEDERATED:
        parts = [
            f"than {name}: {signed(row['cer'], 2, 100)} points of CER ({direction(row['cer'])}), test loss "
            f"{signed(row['loss'], 3)} ({direction(row['loss'])})"
            for name, row in (
                ("scratch", fine[arm, SCRATCH]),
                ("centralised", fine[arm, CENTRALISED]),
            )
        ]
        parts += [
            f"the probe's loss than {name}: {signed(row['loss'], 3)} ({direction(row['loss'])})"
            for name, row in (("log-mel", probe[arm, "log-mel"]), ("a random encoder", probe[arm, "random"]))
        ]
        found.append(f"{label(arm)}: {'; '.join(parts)}.")
    for name, words in (("cer", "CER"), ("loss", "test loss")):
        won = [
            arm
            for arm in FEDERATED
            if verdict(fine[arm, SCRATCH][name]) == "better"
            and all(verdict(probe[arm, other]["loss"]) == "better" for other in ("log-mel", "random"))
        ]
        found.append(
            f"Federated pre-training is better than scratch ({words} after fine-tuning), log-mel and a random "
            "encoder (the probe's loss) by more than the spread in "
            + (
                f"{len(won)} of {len(FEDERATED)} arms: {', '.join(map(label, won))}."
                if won
                else "none of the arms."
            )
        )
    for row in result["comparisons"]:
        if "minutes" in row:
            found.append(
                f"With {row['minutes']:g} minutes of labels, {label(row['arm'])} minus {label(row['against'])}: "
                f"{signed(row['cer'], 2, 100)} points of CER ({direction(row['cer'])}), test loss "
                f"{signed(row['loss'], 3)} ({direction(row['loss'])})."
            )
    lowest = min(row["wer"] for rows in result["finetuning"].values() for row in rows)
    if lowest > HARDLY_RECOGNISED:
        found.append(
            f"The lowest WER of all runs is {100 * lowest:.1f} %: hardly a word is recognised at this scale, CER says "
            "little more than which letters are common, and the loss tells arms apart best."
        )
    return found


def _pretrained(result: dict[str, Any], arm: str, value: Any, digits: int) -> str:
    if arm not in PRETRAINED:
        return "-"
    return mean_spread([value(run) for run in result["pretraining"][arm]], digits)


def _made(result: dict[str, Any]) -> str:
    made, seconds = result["provenance"], result["cell_seconds"]
    by_kind = {
        kind: [value for name, value in seconds.items() if name.startswith(kind)]
        for kind in ("pretrain", "finetune", "probe")
    }
    times = ", ".join(
        f"{kind} {np.median(values):.0f} s (at most {max(values):.0f} s)"
        for kind, values in by_kind.items()
        if values
    )
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return (
        f"## How it was made\n\nWall time of a cell, start and compiling included, {result['jobs']} side by side: {times}. Commit "
        f"{', '.join(made['cell_commits'])}; {made['device']}, {cores_of(made)}; {versions}. Seeds 0 to "
        f"{result['seeds'] - 1}.\n\n```\n{made['command']}\n```"
    )
