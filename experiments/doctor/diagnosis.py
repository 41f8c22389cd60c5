"""Diagnose a run: all checks that apply to its curves, without findings that follow from others."""

from experiments.doctor import pretraining_checks, recognition_checks, training_checks
from experiments.doctor.bands import position_note
from experiments.doctor.curves import Curves
from experiments.doctor.findings import Diagnosis, Finding, sorted_findings
from experiments.doctor.wording import count

CHECKS = (*training_checks.CHECKS, *pretraining_checks.CHECKS, *recognition_checks.CHECKS)
FEWEST_POINTS = 2  # of a curve
# Findings that only say that a model has not learnt. They are left out beside a broken one that says why.
_CONSEQUENCES = (
    "nothing learnt", "too short a run", "few codes", "blank phase of CTC", "accuracy below the band",
    "held-out loss rises", "loss rises again",
)  # fmt: skip
# A run in which nothing was learnt is rarely cured by these.
_BESIDE_NOTHING = ("accuracy below the band", "blank phase of CTC", "few codes")


def diagnose(curves: Curves) -> Diagnosis:
    """Check a run's curves."""
    notes = list(curves.notes)
    if not curves.points:
        return Diagnosis([_no_line(curves)], notes)
    found: list[Finding] = []
    for check in CHECKS:
        if (finding := check(curves)) and finding.name not in [held.name for held in found]:
            found.append(finding)
    names = [held.name for held in found]
    if any(held.severity == "broken" and held.name not in _CONSEQUENCES for held in found):
        found = [held for held in found if held.name not in _CONSEQUENCES]
    elif "nothing learnt" in names or "too short a run" in names:
        found = [held for held in found if held.name not in _BESIDE_NOTHING]
    if (position := position_note(curves)) is not None:
        notes.append(position)
    # Our own runs say how far they are.
    foreign = not curves.writer.startswith("w2v-jax")
    if not found and foreign and len(curves.points) < FEWEST_POINTS:
        found.append(_too_few_points(curves))
    if not curves.finished and curves.planned is not None:
        notes.append(f"The run has done {curves.steps:,.0f} of {count(curves.planned, curves.unit)} so far.")
    return Diagnosis(sorted_findings(found), notes)


def _too_few_points(curves: Curves) -> Finding:
    points = len(curves.points)
    return Finding(
        "watch",
        "too little to judge",
        f"The log has {points} {'point' if points == 1 else 'points'}: no curve can be seen.",
        "Come back when there are more.",
    )


def _no_line(curves: Curves) -> Finding:
    return Finding(
        "watch",
        "no line yet",
        "The run has written no line of metrics: it has just begun, or it ended before its first line.",
        f"Look at its last message. If training diverged, lower {curves.spelling.rate} and start in "
        "another folder.",
    )
