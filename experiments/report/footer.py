"""The last lines of a report: the command, the commit, the machine and the versions that made it."""

from typing import Any

from experiments.report.prose import fold


def footer(provenance: dict[str, Any]) -> str:
    """Format what `experiments.process.provenance.record_provenance` recorded, with a fold."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    flags = f"`{provenance['xla_flags']}`\n\n" if provenance["xla_flags"] else ""
    title = "XLA flags and versions" if flags else "Versions"
    return (
        f"`{provenance['command']}`, commit {provenance['commit']}, {provenance['device']}, "
        f"{provenance['cores']} cores\n\n{fold(title, flags + versions)}"
    )
