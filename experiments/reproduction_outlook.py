"""Whether and when, and what federated training learns: section 4.1, Figures 1 and 5, the verdict."""

import statistics
from typing import Any

from experiments import feasibility_report, paper
from experiments.reproduction import Comparison


def section41(result: dict[str, Any]) -> list[Comparison]:
    """Section 4.1: values side by side."""
    board = result["projected"][result["device"]]
    start, gaps = result["assumptions"]["from_year"], board["gaps"].values()
    title = result["titles"][result["device"]]
    return [
        Comparison(f"{title}: times slower than the A40 on base, least", min(gaps), min(gaps), 1, verdict="from Table 2"),
        Comparison(f"{title}: times slower than the A40 on base, most", max(gaps), max(gaps), 1, verdict="from Table 2"),
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
            "Devices that could do it today, all criteria together", "none", ", ".join(there) or "none"
        ),
        *(
            Comparison(
                f"Devices of {len(judged)} whose memory holds base at batch 8 x 12 s: {title}",
                "not printed",
                str(_holding(judged, name)),
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
    held = {name: _holding(result["verdicts"], name) for name in feasibility_report.MEMORIES}
    return (
        f"Memory is the wall that can be taken down: base at batch 8 x 12 s fits {held['memory']} of {len(result['verdicts'])} devices as it is "
        f"usually computed, {held['memory_exact']} with methods that change no gradient. Bytes are another: a run of "
        f"{run['rounds']:,} rounds moves {bytes_['run_bytes'] / 1e9:,.0f} GB for every client, whose audio is {bytes_['audio_raw_bytes'] / 1e9:.1f} GB; from round "
        f"{bytes_['break_even_raw']} on, federating has moved more than sending the audio once would have. "
        "Longer local work, fewer rounds or smaller updates would change that answer; the `feasibility` command takes them as options."
    )


def _holding(judged: list[dict[str, Any]], name: str) -> int:
    """Devices whose memory is known to be enough."""
    return sum(row[name] is not None and row[name] >= 1 for row in judged)


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
    return (
        f"Federated training ends above the centralised held-out loss in every arm, as in the paper. This is a toy: `{result['settings']['model']}` on `{result['data']}`, "
        f"{result['settings']['rounds']} rounds, {result['seeds']} seeds; directions can be compared, values cannot, and the paper prints none."
    )


def fig5(result: dict[str, Any]) -> list[Comparison]:
    """Figure 5: values side by side."""

    def mean(arm: str) -> float:
        return 100 * statistics.mean(run["cer"] for run in result["finetuning"][arm])

    def apart(one: str, other: str) -> list[float]:
        pairs = zip(result["finetuning"][one], result["finetuning"][other], strict=True)
        return [100 * (a["cer"] - b["cer"]) for a, b in pairs]

    found = []
    for claim, better, worse in (
        ("10 clients better than 100, FedAvg", "ten-clients-fedavg", "hundred-clients-fedavg"),
        (
            "10 clients better than 100, loss-weighted",
            "ten-clients-loss-weighted",
            "hundred-clients-loss-weighted",
        ),
        ("loss weighting better than FedAvg, 10 clients", "ten-clients-loss-weighted", "ten-clients-fedavg"),
        (
            "loss weighting better than FedAvg, 100 clients",
            "hundred-clients-loss-weighted",
            "hundred-clients-fedavg",
        ),
    ):
        differences = apart(better, worse)
        spread = statistics.stdev(differences) if len(differences) > 1 else float("inf")
        middle = statistics.mean(differences)
        clear = abs(middle) > spread
        found.append(
            Comparison(
                f"{claim}: character error rate, points",
                "yes",
                f"{mean(better):.1f} % against {mean(worse):.1f} %",
                verdict=("agrees" if middle < 0 else "differs") if clear else "within the spread of seeds",
            )
        )
    return found


def fig5_means(result: dict[str, Any]) -> str:
    """Figure 5: what they mean."""
    lowest = min(run["wer"] for runs in result["finetuning"].values() for run in runs)
    return (
        f"A toy: `{result['settings']['model']}` on `{result['data']}`, {result['seeds']} seeds. The lowest word error rate of all runs is {100 * lowest:.0f} %, hardly a word is recognised, so "
        "that the paper's directions are neither confirmed nor refuted here; the whole report has the losses, probes and references that the paper lacks."
    )
