"""Federated training beside the paper: Figures 1 and 5."""

from typing import Any

from experiments.report.statistics import mean_spread, shown_sign, signed
from experiments.reproduce.comparison import Comparison
from experiments.reproduce.fig1_report import behind_centralised
from experiments.reproduce.fig5.sentences import HARDLY_RECOGNISED, comparisons, paper_directions
from experiments.study.curves import NO_DIFFERENCE, label, verdict


def fig1(result: dict[str, Any]) -> list[Comparison]:
    """Put Figure 1 side by side: the share of the way to the centralised loss, arm by arm."""
    behind = behind_centralised(result)
    words = {-1: "agrees", 0: NO_DIFFERENCE, 1: "differs"}
    return [
        Comparison(
            f"{arm.replace('-', ' ')}: share of the way to the centralised loss",
            "slower than centralised",
            f"{mean_spread(result['share_of_centralised_drop'][arm]['by_seed'], 0, 100)} %",
            verdict=words[shown_sign(held["by_seed"], len(behind))],
        )
        for arm, held in behind.items()
    ]


def fig1_means(result: dict[str, Any]) -> str:
    """Say what Figure 1 means."""
    rows = fig1(result)
    means = [held["mean"] for held in behind_centralised(result).values()]
    return (
        f"The means of {sum(mean is not None and mean < 0 for mean in means)} of {len(rows)} federated arms "
        "end above the centralised held-out loss, as the paper's figure has all of them; by t intervals for "
        f"all {len(rows)} together this is shown for {sum(row.verdict == 'agrees' for row in rows)}. "
        f"{_scale(result)}Directions can be compared; values cannot, and the paper prints none."
    )


def _scale(result: dict[str, Any]) -> str:
    """Say which model was trained, on which data and for how long; a toy is called one."""
    settings = result["settings"]
    toy = "It is a toy: " if settings["model"] == "tiny" else ""
    return (
        f"{toy}`{settings['model']}` on `{result['data']}`, {settings['rounds']} rounds, "
        f"{result['seeds']} seeds. "
    )


# A lower value is better. The paper speaks of convergence, for which the held-out loss stands here.
SAID = {"better": "agrees", "worse": "differs", NO_DIFFERENCE: NO_DIFFERENCE}


def fig5(result: dict[str, Any]) -> list[Comparison]:
    """Put Figure 5 side by side: the paper's directions, by held-out loss and by recognition."""
    number, found = comparisons(result), []
    for row in paper_directions(result):
        for what, difference, scale in (
            ("held-out loss, nats", row.heldout_loss, 1.0),
            ("character error rate, points", row.cer, 100.0),
            ("test loss, nats a character", row.loss, 1.0),
        ):
            found.append(
                Comparison(
                    f"{row.claim}: {label(row.better)} minus {label(row.worse)}, {what}",
                    "lower",
                    signed(difference, 3, scale),
                    verdict=SAID[verdict(difference, number)],
                )
            )
    return found


def fig5_means(result: dict[str, Any]) -> str:
    """Say what Figure 5 means."""
    rows = fig5(result)
    told = {word: sum(row.verdict == word for row in rows) for word in SAID.values()}
    lowest = min(run["wer"] for runs in result["finetuning"].values() for run in runs)
    hardly = ": hardly a word is recognised" if lowest > HARDLY_RECOGNISED else ""
    return (
        f"Of {len(rows)} differences between arms {told['agrees']} are shown in the paper's direction and "
        f"{told['differs']} in the other, by t intervals over seeds for {comparisons(result)} comparisons "
        f"together; for {told[NO_DIFFERENCE]} no difference is shown. {_scale(result)}The lowest word error "
        f"rate of all runs is {100 * lowest:.0f} %{hardly}. The whole report has the probes and references "
        "that the paper lacks."
    )
