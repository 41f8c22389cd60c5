"""Whether and when, and what federated training learns: section 4.1, Figures 1 and 5, the verdict."""

from typing import Any

from experiments import paper
from experiments.feasibility import report as feasibility_report
from experiments.report.statistics import mean_spread, shown_sign, signed
from experiments.reproduce.comparison import Comparison
from experiments.reproduce.fig1_report import behind_centralised
from experiments.reproduce.fig5_sentences import HARDLY_RECOGNISED, comparisons, paper_directions
from experiments.study.curves import NO_DIFFERENCE, label, verdict


def section41(result: dict[str, Any]) -> list[Comparison]:
    """Section 4.1: values side by side."""
    board = result["projected"][result["device"]]
    start = result["assumptions"]["from_year"]
    title = result["titles"][result["device"]]
    return [
        Comparison(
            f"{title}: year that it reaches the A40's speed, from {start:g}, earliest",
            str(result["printed_year"]),
            f"{start + min(board['years']):.1f}",
            verdict=f"{start + min(board['years']) - result['printed_year']:+.1f} years",
        ),
        Comparison(
            f"{title}: the same, latest, and from {start + 1:g}",
            str(result["printed_year"]),
            f"{start + 1 + max(board['years']):.1f}",
            verdict=f"{start + 1 + max(board['years']) - result['printed_year']:+.1f} years",
        ),
    ]  # fmt: skip


def section41_means(result: dict[str, Any]) -> str:
    """Section 4.1: what they mean."""
    since = [
        board for board in result["boards"] if board["gap"] is not None and board["year"] >= paper.PAPER_YEAR
    ]
    fastest = min(since, key=lambda board: board["gap"])
    slow, quick = result["sensitivity"][-1], result["sensitivity"][0]
    return (
        f"Compute that doubles every {result['assumptions']['doubling_months']:g} months gives {result['assumptions']['five_years_give']:.1f} times in five years, which "
        f"brings the paper's typical board to the A40's speed by {result['printed_year']}. The year hangs on that assumption: with {quick['doubling_months']:g} months it is "
        f"{min(quick['years']):.0f}, with {slow['doubling_months']:g} it is {max(slow['years']):.0f}. Of the boards that have come out since, the {fastest['title']} ({fastest['year']}) is "
        f"modelled {fastest['gap']:.1f} times slower than the A40, by its data sheet alone."
    )


def feasibility(result: dict[str, Any]) -> list[Comparison]:
    """The verdict: values side by side."""
    judged = result["verdicts"]
    there = [row["title"] for row in judged if feasibility_report.overall(row) == "yes"]
    a40 = next(
        (
            row
            for row in result["rows"]
            if (row["device"], row["model"], row["method"], row["precision"], row["batch"], row["seconds"])
            == ("a40", "base", "plain", "fp32", 4, paper.TABLE_2_SECONDS)
        ),
        None,
    )
    found = [
        Comparison(
            "Devices that could do it, all criteria together",
            f"not before {paper.PREDICTED_YEAR}",
            ", ".join(there) or "none today",
            verdict="yes" if there else "not yet",
        ),
        *(
            Comparison(
                f"Devices of {len(judged)} whose memory holds base at batch 8 x 12 s: {title}",
                "not printed",
                str(feasibility_report.meeting(judged, name)),
                verdict="new here",
            )
            for name, title in (
                ("memory", "plain"),
                ("memory_remat", "layers computed again"),
                ("memory_exact", "every exact method"),
            )
        ),
    ]
    if a40 is not None:
        found.append(
            Comparison(
                "Days of the whole run on the A40, base",
                paper.TOTAL_DAYS_ON_A40,
                a40["run_days"],
                1,
                verdict="sets the number of rounds",
            )
        )
    return found


def feasibility_means(result: dict[str, Any]) -> str:
    """The verdict: what they mean."""
    bytes_, run = result["bytes"]["base"], result["run"]
    held = {
        name: feasibility_report.meeting(result["verdicts"], name) for name in feasibility_report.MEMORIES
    }
    return (
        f"Memory is the wall that can be taken down: base at batch 8 x 12 s fits {held['memory']} of {len(result['verdicts'])} devices as it is "
        f"usually computed, {held['memory_exact']} with methods that change no gradient. Bytes are another: a run of "
        f"{run['rounds']:,} rounds moves {bytes_['run_bytes'] / 1e9:,.0f} GB for every client, whose audio is {bytes_['audio_raw_bytes'] / 1e9:.1f} GB; from round "
        f"{bytes_['break_even_raw']} on, federating has moved more than sending the audio once would have. "
        "Fewer rounds of more local work would change that answer: `w2v-jax feasibility --rounds N` says which."
    )


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
