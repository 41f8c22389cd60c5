"""Sentences of fig5.md: each is worked out from the numbers of fig5.json."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from experiments.report.statistics import over_seeds, signed
from experiments.study.curves import NO_DIFFERENCE, direction, judgement, label, shown_count, verdict
from experiments.study.federated_scales import FEDERATED, LOG_MEL, PRETRAINED, RANDOM, SCRATCH

# Directions that the paper prints for Figure 5: (better arm, worse arm, claim).
PAPER_DIRECTIONS = (
    ("ten-clients-fedavg", "hundred-clients-fedavg", "10 clients converge faster than 100"),
    ("ten-clients-loss-weighted", "hundred-clients-loss-weighted", "10 clients converge faster than 100"),
    ("ten-clients-loss-weighted", "ten-clients-fedavg", "loss weighting beats FedAvg, 10 clients"),
    ("hundred-clients-loss-weighted", "hundred-clients-fedavg", "loss weighting beats FedAvg, 100 clients"),
)
HARDLY_RECOGNISED = 0.9  # a word error rate
JUDGED = {"cer": "CER", "loss": "test loss"}  # values of `comparisons` that get a verdict


class PaperDirection(NamedTuple):
    """A direction of the paper and our differences: better arm minus worse arm, over seeds."""

    claim: str
    better: str
    worse: str
    heldout_loss: dict[str, Any]
    cer: dict[str, Any]
    loss: dict[str, Any]


def paper_directions(result: dict[str, Any]) -> list[PaperDirection]:
    """Compute our differences for each direction of the paper."""
    found = []
    for better, worse, claim in PAPER_DIRECTIONS:
        pairs = zip(result["pretraining"][better], result["pretraining"][worse], strict=True)
        heldout = over_seeds([one["curve"]["loss"][-1] - other["curve"]["loss"][-1] for one, other in pairs])
        row = _rows(result, "finetuning")[better, worse]
        found.append(PaperDirection(claim, better, worse, heldout, row["cer"], row["loss"]))
    return found


def _rows(result: dict[str, Any], kind: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Comparisons of one kind on all labels, by (arm, against)."""
    return {
        (row["arm"], row["against"]): row
        for row in result["comparisons"]
        if row["kind"] == kind and "minutes" not in row
    }


def differences(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name every difference that the report judges: the family of its intervals."""
    found = {}
    for row in result["comparisons"]:
        what = {"finetuning": "fine-tuning", "probes": "probe"}[row["kind"]]
        minutes = f" on {row['minutes']:g} minutes" if "minutes" in row else ""
        for name, words in JUDGED.items():
            found[f"{what}{minutes}, {label(row['arm'])} minus {label(row['against'])}, {words}"] = row[name]
    for row in paper_directions(result):
        found[f"pre-training, {label(row.better)} minus {label(row.worse)}, held-out loss"] = row.heldout_loss
    return found


def comparisons(result: dict[str, Any]) -> int:
    """Count the differences that the report judges together."""
    return len(differences(result))


def sentences(result: dict[str, Any]) -> list[str]:
    """Say what the numbers show, one line a question."""
    return [
        _shown(result),
        *_means_below_scratch(result),
        *_paper(result),
        *_better_than_all(result),
        *_hardly_recognised(result),
    ]


def _shown(result: dict[str, Any]) -> str:
    held, number = differences(result), comparisons(result)
    shown = [
        f"{name} ({word})"
        for name, value in held.items()
        if (word := verdict(value, number)) != NO_DIFFERENCE
    ]
    return (
        f"{judgement(result['seeds'], number)} {shown_count(list(held.values()), number)} "
        f"Shown: {'; '.join(shown) or 'none'}."
    )


def _means_below_scratch(result: dict[str, Any]) -> Iterator[str]:
    rows = _rows(result, "finetuning")
    counts = []
    for name, words in JUDGED.items():
        below = [arm for arm in PRETRAINED if rows[arm, SCRATCH][name]["mean"] < 0]
        counts.append(f"in {words} for {len(below)} of {len(PRETRAINED)}")
    yield (
        "After fine-tuning on all labels, the mean of a pre-trained arm lies below scratch's "
        f"{', '.join(counts)} arms. Scratch's learning rate was chosen on one seed."
    )


def _paper(result: dict[str, Any]) -> Iterator[str]:
    number = comparisons(result)
    for row in paper_directions(result):
        yield (
            f"The paper: {row.claim}. Here {label(row.better)} minus {label(row.worse)}: held-out loss "
            f"{signed(row.heldout_loss, 4)} ({direction(row.heldout_loss, number)}), CER "
            f"{signed(row.cer, 2, 100)} points ({direction(row.cer, number)}), test loss "
            f"{signed(row.loss, 3)} ({direction(row.loss, number)})."
        )


def _better_than_all(result: dict[str, Any]) -> Iterator[str]:
    fine, probes, number = _rows(result, "finetuning"), _rows(result, "probes"), comparisons(result)
    for name, words in JUDGED.items():
        won = [
            label(arm)
            for arm in FEDERATED
            if verdict(fine[arm, SCRATCH][name], number) == "better"
            and all(verdict(probes[arm, other]["loss"], number) == "better" for other in (LOG_MEL, RANDOM))
        ]
        yield (
            f"Federated pre-training is shown to be better than scratch ({words} after fine-tuning), "
            f"log-mel and a random encoder (loss of the probe) in {len(won)} of {len(FEDERATED)} arms"
            + (f": {', '.join(won)}." if won else ".")
        )


def _hardly_recognised(result: dict[str, Any]) -> Iterator[str]:
    lowest = min(row["wer"] for rows in result["finetuning"].values() for row in rows)
    if lowest > HARDLY_RECOGNISED:
        yield (
            f"The lowest WER of all runs is {100 * lowest:.1f} %: hardly a word is recognised at this "
            "scale. CER says little more than which letters are common, and the loss tells arms apart best."
        )
