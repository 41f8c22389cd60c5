"""The parts of a fine-tuning report that are about clients: the federation, and personalisation."""

from collections.abc import Mapping
from typing import Any

from experiments.report.tables import table
from experiments.report.units import percent

CLIENTS_SHOWN = 15
Line = Mapping[str, Any]


def federation_facts(settings: Line, data: Line) -> list[tuple[str, str]]:
    """List the facts of federated training; none for a central run.

    Args:
        settings: of config.json.
        data: the content of data.json.
    """
    held = data.get("federation")
    if held is None:
        return []
    least, median, most = held["seconds_min_median_max"]
    algorithm = " ".join([settings["algorithm"], *settings["algorithm_options"]])
    return [
        ("clients", f"{held['clients']}, {held['clients_per_round']} a round ({settings['partition']})"),
        ("speech of a client", f"{least:.0f} s to {most:.0f} s, median {median:.0f} s"),
        ("rounds", f"{held['rounds']} of {settings['local_steps']} local steps"),
        ("algorithm", algorithm),
        (
            "statistics of normalisation",
            "those of the clients, averaged with the weights of their updates",
        ),
    ]


def told(found: Line) -> str:
    """Say in a line what personalisation gained over all clients.

    Args:
        found: of `personalisation.personalised`.
    """
    rows = found["clients"]
    better, worse = sum(row["gain"] > 0 for row in rows), sum(row["gain"] < 0 for row in rows)
    half = found["gain_interval"]
    beside = (
        "no interval: one client" if half is None else f"± {100 * half:.1f}, 95 % t interval over clients"
    )
    return (
        f"personalised with {found['updates']} updates a client: the {found['score']} of {len(rows)} clients "
        f"on their withheld clips is {_change(found['gain'])} on average ({beside}); {better} gain, {worse} "
        f"lose, {len(rows) - better - worse} stay the same"
    )


def _change(gain: float) -> str:
    """Say by how much a score is better or worse."""
    if gain == 0:
        return "unchanged"
    return f"{100 * abs(gain):.1f} points {'better' if gain > 0 else 'worse'}"


def section(result: Line) -> str:
    """Write the section on personalisation; empty where the run has none.

    Args:
        result: the content of results.json.
    """
    found = result.get("personalised")
    if found is None:
        return ""
    line, left_out = told(found), found["clients_without_withheld_clips"]
    rows = [
        (
            row["client"],
            row["speakers"],
            row["training_clips"],
            row["withheld_clips"],
            percent(row["before"], 1),
            percent(row["after"], 1),
            f"{100 * row['gain']:+.1f}",
        )
        for row in found["clients"][:CLIENTS_SHOWN]
    ]
    score = found["score"]
    paragraphs = [
        "## Personalised clients, the smallest gain first",
        f"{line[0].upper()}{line[1:]}.",
        f"Training left out {found['withheld_clips']} clips, about a fifth of each speaker's, and these are "
        "scored. A copy of the model was trained on each client's own training clips, at "
        f"{found['rate_share']:g} of the peak learning rates. A positive gain is an improvement."
        + f" {left_out} clients have no withheld clip and are not scored."
        * bool(left_out),
        table(
            (
                "client",
                "speakers",
                "training clips",
                "withheld clips",
                f"{score} before",
                f"{score} after",
                "gain, points",
            ),
            rows,
        ),
    ]
    more = len(found["clients"]) - len(rows)
    return "\n\n".join([*paragraphs, *([f"`results.json` has the other {more} clients."] if more else [])])
