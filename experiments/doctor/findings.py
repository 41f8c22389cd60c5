"""Findings of the doctor, and the verdict that follows from them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

Verdict = Literal["healthy", "watch", "broken"]
SEVERITIES: tuple[Verdict, ...] = ("healthy", "watch", "broken")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        severity: `watch` for what may pass or costs quality, `broken` for what makes the run useless.
        name: a few words, the same for every run.
        because: the evidence with its numbers, as sentences.
        advice: what to change, with the option's name, as sentences.
    """

    severity: Literal["watch", "broken"]
    name: str
    because: str
    advice: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The findings on a run.

    Attributes:
        findings: the worst first; of equal ones, the likely cause first.
        notes: sentences that are no findings: assumptions, and how the run compares.
    """

    findings: Sequence[Finding]
    notes: Sequence[str] = ()

    @property
    def verdict(self) -> Verdict:
        """The severity of the worst finding; healthy without findings."""
        worst: list[Verdict] = ["healthy", *(held.severity for held in self.findings)]
        return max(worst, key=SEVERITIES.index)

    def line(self) -> str:
        """Give the verdict and the names of all findings in one line."""
        names = ", ".join(held.name for held in self.findings)
        return f"{self.verdict}: {names}" if names else self.verdict

    def as_json(self) -> dict[str, Any]:
        """Convert to JSON."""
        return {
            "verdict": self.verdict,
            "findings": [dataclasses.asdict(held) for held in self.findings],
            "notes": list(self.notes),
        }


def sorted_findings(findings: Sequence[Finding]) -> list[Finding]:
    """Sort findings by severity, the worst first; equal ones keep their order."""
    return sorted(findings, key=lambda held: -SEVERITIES.index(held.severity))
