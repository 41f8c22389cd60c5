"""The verdict of `w2v-jax feasibility` beside the paper's."""

from typing import Any

from experiments import paper
from experiments.costs.devices.records import REFERENCE, RunRow
from experiments.feasibility.verdicts import meeting, overall, verdicts_of
from experiments.report.units import gigabytes
from experiments.reproduce.comparison import Comparison, Item

MEMORIES = {
    "memory": "plain",
    "memory_remat": "layers computed again",
    "memory_exact": "every exact method",
}


def compare(result: dict[str, Any]) -> list[Comparison]:
    """Compare the verdict, the memory by method and the days on an A40 with the paper's words."""
    devices = verdicts_of(result)
    there = [device.title for device in devices if overall(device) == "yes"]
    return [
        Comparison(
            "Devices that could do it, all criteria together",
            f"not before {paper.PREDICTED_YEAR}",
            ", ".join(there) or "none today",
            verdict="yes" if there else "not yet",
        ),
        *(
            Comparison(
                f"Devices of {len(devices)} whose memory holds base at batch 8 x 12 s: {title}",
                "not printed",
                str(meeting(devices, name)),
                verdict="new here",
            )
            for name, title in MEMORIES.items()
        ),
        *(
            Comparison(
                "Days of the whole run on the A40, base",
                paper.TOTAL_DAYS_ON_A40,
                days,
                1,
                verdict="sets the number of rounds",
            )
            for days in _days_on_reference(result)
        ),
    ]


def _days_on_reference(result: dict[str, Any]) -> list[float]:
    """Find the days of the paper's own setting on the A40; empty where that was not priced."""
    wanted = (REFERENCE, "base", "plain", "fp32", 4, paper.TABLE_2_SECONDS)
    rows = [RunRow.from_json(row) for row in result["rows"]]
    return [
        row.run_days
        for row in rows
        if (row.device, row.model, row.method, row.precision, row.batch, row.seconds) == wanted
        and row.run_days is not None
    ][:1]


def meaning(result: dict[str, Any]) -> str:
    """Say what the verdict means."""
    traffic, run = result["bytes"]["base"], result["run"]
    devices = verdicts_of(result)
    held = {name: meeting(devices, name) for name in MEMORIES}
    return (
        f"Memory depends on the method: base at batch 8 x 12 s fits {held['memory']} of {len(devices)} "
        f"devices as it is usually computed, {held['memory_exact']} with methods that change no gradient. "
        f"Bytes depend on the rounds: a run of {run['rounds']:,} rounds moves "
        f"{gigabytes(traffic['run_bytes'], 0)} GB for every client, whose audio is "
        f"{gigabytes(traffic['audio_raw_bytes'], 1)} GB; from round {traffic['break_even_raw']} on, "
        "federating has moved more than sending the audio once would have. Fewer rounds of more local "
        "work would change that answer: `w2v-jax feasibility --rounds N` says which."
    )


ITEM = Item("feasibility", "Are we there yet?", ("feasibility",), compare, meaning)
