"""Pictures of Figure 5: fig5.png and fig5-fairness.png."""

from pathlib import Path
from typing import Any

from experiments.report.figures import PAGE_INCHES, count_axis, legend_above, message, picture
from experiments.reproduce.fig5.sentences import comparisons, differences
from experiments.study.curves import band, errorbars, points, shown_count
from experiments.study.federated_scales import ARMS, BUDGET_ARMS, CENTRALISED, FEDERATED, PROBED, SCRATCH

CER, LOSS = ("cer", "test CER, %", 100.0), ("loss", "test loss, nats a character", 1.0)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw pre-training curves on top, and error rates after fine-tuning below."""
    mosaic = (["ten"] * 3 + ["hundred"] * 3, ["wer", "wer", "cer", "cer", "loss", "loss"])
    with picture(path, mosaic=mosaic, figsize=(PAGE_INCHES, 7.5)) as axes:
        tops = [axes["ten"], axes["hundred"]]
        for axis, clients in zip(tops, ("ten", "hundred"), strict=True):
            for arm in (CENTRALISED, *(arm for arm in FEDERATED if arm.startswith(clients))):
                band(axis, result["pretraining"][arm], "round", "loss", arm)
            axis.set(title=f"Pre-training, {'10' if clients == 'ten' else '100'} clients", xlabel="round")
            count_axis(axis)
        tops[0].set_ylabel("held-out contrastive loss, nats")
        low = min(axis.get_ylim()[0] for axis in tops)
        high = max(axis.get_ylim()[1] for axis in tops)
        for axis in tops:
            axis.set_ylim(low, high)
        for name, unit, scale in (
            ("wer", "test WER, %", 100.0),
            ("cer", "test CER, %", 100.0),
            ("loss", "test loss, nats a character", 1.0),
        ):
            points(axes[name], result["finetuning"], ARMS, name, scale)
            axes[name].set(xlabel=unit)
            if name != "wer":
                axes[name].set_yticklabels([])
        axes["cer"].set_title("After fine-tuning")
        legend_above(tops)
        message(
            tops[0],
            f"{_shown_count(result)} Above: lines are means of {result['seeds']} seeds, bands run from the "
            "lowest to the highest seed; each arm hears as much audio a round. Below: a dot is a seed, a bar "
            "the mean.",
        )


def _shown_count(result: dict[str, Any]) -> str:
    """Count the differences of the report that are shown."""
    return shown_count(list(differences(result).values()), comparisons(result)).split(". ")[0] + "."


def draw_fairness(result: dict[str, Any], path: Path) -> None:
    """Draw probes, budgets of labels, and error rates against the length of pre-training."""
    with picture(path, 3, 2, figsize=(PAGE_INCHES, 9.5)) as grid:
        points(grid[0, 0], result["probes"], PROBED, "loss", scale=1.0)
        grid[0, 0].set(title="Linear CTC probe on frozen features", xlabel=LOSS[1])
        _draw_budgets(result, grid[1])
        for axis, kind, what, (name, unit, scale) in (
            (grid[0, 1], "probe", "Probe", LOSS),
            (grid[2, 0], "finetune", "Fine-tuning", CER),
            (grid[2, 1], "finetune", "Fine-tuning", LOSS),
        ):
            for arm in result["trend"][kind]:
                by_round = trend(result, kind, arm)
                errorbars(axis, list(by_round), list(by_round.values()), name, arm, scale)
            axis.set(
                title=f"{what} against pre-training time",
                xlabel="rounds of pre-training (0: none)",
                ylabel=unit,
            )
            count_axis(axis)
        legend_above([grid[1, 0]])
        message(
            grid[0, 0],
            f"{_shown_count(result)} Probe: a dot is a seed, a bar the mean. Curves: means of "
            f"{result['seeds']} seeds; bars run from the lowest to the highest seed.",
        )


def _draw_budgets(result: dict[str, Any], axes: Any) -> None:
    minutes = [*map(float, result["budgets"]), result["train_minutes"]]
    for axis, (name, unit, scale) in zip(axes, (CER, LOSS), strict=True):
        for arm in BUDGET_ARMS:
            rows = [*(budget[arm] for budget in result["budgets"].values()), result["finetuning"][arm]]
            errorbars(axis, minutes, rows, name, arm, scale)
        axis.set(
            title="Fine-tuning on fewer labels",
            xlabel="minutes of transcribed speech",
            ylabel=unit,
            xscale="log",
        )
        axis.set_xticks(minutes, [f"{value:.0f}" for value in minutes])
        axis.minorticks_off()


def trend(result: dict[str, Any], kind: str, arm: str) -> dict[int, list[dict[str, Any]]]:
    """Collect the rows of an arm by rounds of pre-training, from none (scratch, a random encoder) to all."""
    none, whole = {
        "finetune": (result["finetuning"][SCRATCH], result["finetuning"]),
        "probe": (result["probes"]["random"], result["probes"]),
    }[kind]
    between = {int(at_round): rows for at_round, rows in result["trend"][kind][arm].items()}
    return {0: none, **between, result["settings"]["rounds"]: whole[arm]}
