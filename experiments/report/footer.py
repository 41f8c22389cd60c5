"""The last lines of a report: the command, the commit, the machine and the versions that made it."""

from typing import Any


def footer(provenance: dict[str, Any]) -> str:
    """Format what `experiments.process.provenance.record_provenance` recorded, as one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in provenance["versions"].items())
    flags = f", flags `{provenance['xla_flags']}`" if provenance["xla_flags"] else ""
    return (
        f"`{provenance['command']}`, commit {provenance['commit']}, {provenance['device']}, "
        f"{provenance['cores']} cores{flags}, {versions}"
    )
