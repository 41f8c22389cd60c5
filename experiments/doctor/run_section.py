"""The section of a run's own report: is this run healthy?"""

from pathlib import Path

from experiments.doctor import report, run_folder
from experiments.doctor.diagnosis import diagnose


def of_folder(folder: Path) -> str:
    """Write the section of a run folder in Markdown; the report around it says where the losses went."""
    curves = run_folder.read(folder)
    return report.section(curves, diagnose(curves), summarised=False)
