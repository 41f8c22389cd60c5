"""Federated training beside the paper: Figures 1 and 5."""

from typing import Any

from experiments.report.statistics import over_seeds
from experiments.reproduce.comparison import Comparison
from experiments.reproduce.fig5_report import HARDLY_RECOGNISED, PAPER_DIRECTIONS
from experiments.study.curves import CENTRALISED, label, verdict


def fig1(result: dict[str, Any]) -> list[Comparison]:
    """Figure 1: values side by side."""
    share = {arm: held["mean"] for arm, held in result["share_of_centralised_drop"].items()}
    return [
        Comparison(
            f"{arm.replace('-', ' ')}: share of the way to the centralised loss",
            "slower than centralised",
            f"{100 * mean:.0f} %",
            verdict="agrees" if mean < 1 else "differs",
        )
        for arm, mean in share.items()
        if arm != "centralised"
    ]


def fig1_means(result: dict[str, Any]) -> str:
    """Figure 1: what they mean."""
    shares = [held["mean"] for arm, held in result["share_of_centralised_drop"].items() if arm != CENTRALISED]
    behind = sum(mean < 1 for mean in shares)
    return (
        f"{behind} of {len(shares)} federated arms end above the centralised held-out loss, as the paper's figure has all of them. "
        + _scale(result)
        + "Directions can be compared; values cannot, and the paper prints none."
    )


def _scale(result: dict[str, Any]) -> str:
    """What was trained, on what; a toy is called so."""
    toy = "It is a toy: " if result["settings"]["model"] == "tiny" else ""
    return f"{toy}`{result['settings']['model']}` on `{result['data']}`, {result['settings']['rounds']} rounds, {result['seeds']} seeds. "


# A lower value is better; the paper says so of convergence, which the held-out loss stands for.
SAID = {"better": "agrees", "worse": "differs", "no": "within the spread, or seeds disagree"}


def fig5(result: dict[str, Any]) -> list[Comparison]:
    """Figure 5: the paper's directions, by held-out loss of pre-training and by recognition."""
    found = []
    for better, worse, claim in PAPER_DIRECTIONS:
        pairs = zip(result["pretraining"][better], result["pretraining"][worse], strict=True)
        heldout = over_seeds([a["curve"]["loss"][-1] - b["curve"]["loss"][-1] for a, b in pairs])
        of_recognition = next(
            row
            for row in result["comparisons"]
            if (row["kind"], row["arm"], row["against"]) == ("finetuning", better, worse)
            and "minutes" not in row
        )
        for what, difference, scale in (
            ("held-out loss, nats", heldout, 1.0),
            ("character error rate, points", of_recognition["cer"], 100.0),
            ("test loss, nats a character", of_recognition["loss"], 1.0),
        ):
            spread = "" if difference["spread"] is None else f" ± {scale * difference['spread']:.3f}"
            found.append(
                Comparison(
                    f"{claim}: {label(better)} less {label(worse)}, {what}",
                    "lower",
                    f"{scale * difference['mean']:+.3f}{spread}",
                    verdict=SAID[verdict(difference)],
                )
            )
    return found


def fig5_means(result: dict[str, Any]) -> str:
    """Figure 5: what they mean."""
    rows = fig5(result)
    told = {word: sum(row.verdict == word for row in rows) for word in SAID.values()}
    lowest = min(run["wer"] for runs in result["finetuning"].values() for run in runs)
    return (
        f"Of {len(rows)} differences between arms {told['agrees']} are in the paper's direction beyond the spread of seeds, {told['differs']} are beyond it in the other, "
        f"and {told[SAID['no']]} say nothing. {_scale(result)}The lowest word error rate of all runs is {100 * lowest:.0f} %"
        f"{': hardly a word is recognised' if lowest > HARDLY_RECOGNISED else ''}. The whole report has the probes and references that the paper lacks."
    )
