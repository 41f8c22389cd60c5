"""The section of a run's own report: is this run healthy?"""

from pathlib import Path

from experiments.doctor import report, run_folder
from experiments.doctor.diagnosis import diagnose


def of_folder(folder: Path) -> str:
    """Write the section of a run folder in Markdown; it ends with a line break."""
    curves = run_folder.read(folder)
    return report.section(curves, diagnose(curves))
