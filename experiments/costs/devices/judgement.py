"""The verdict on a device: what it has over what base takes, by criterion."""

from experiments import paper
from experiments.costs.devices import plan_surface
from experiments.costs.devices.costs import DeviceCosts
from experiments.costs.devices.plan_grid import METHODS
from experiments.costs.devices.records import REFERENCE, DeviceVerdict, StepRow
from profiling import feasibility

# The paper's "more desirable" setting (section 3.1), by which memory is judged.
DESIRED_BATCH, DESIRED_SECONDS = 8, 12.0
COMPARED_BATCH = 4


def judge(costs: DeviceCosts, name: str, bytes_ratio: float) -> DeviceVerdict:
    """Judge a device for base by compute, memory, bytes and energy.

    Args:
        costs: prices of steps on devices.
        name: in the catalogue.
        bytes_ratio: a client's raw audio over what its rounds move.
    """
    device, reference = costs.devices[name], costs.devices[REFERENCE]
    ours, theirs = _fastest_step(costs, name), _fastest_step(costs, REFERENCE)
    usable = feasibility.usable_bytes(device, costs.headroom)
    memory, errors = {}, {}
    for method in METHODS:
        plan = plan_surface.plan(device, "base", method, "fp32", DESIRED_BATCH, DESIRED_SECONDS)
        criterion = "memory" if method == "plain" else f"memory_{method}"
        memory[criterion] = None if plan is None or usable is None else usable / plan.bytes
        errors[criterion] = 0.0 if plan is None else plan.error
    compute = energy = None
    if ours and theirs and ours.step_seconds and theirs.step_seconds:
        compute = theirs.step_seconds / ours.step_seconds
        if device.watts and reference.watts:
            energy = reference.watts * theirs.step_seconds / (device.watts * ours.step_seconds)
        # A modelled time may be as far off as a data sheet was on Table 2.
        errors["compute"] = errors["energy"] = costs.worst_factor - 1 if ours.time_by == "modelled" else 0.0
    return DeviceVerdict(
        device=name,
        title=device.title,
        year=device.year,
        compute=compute,
        **memory,
        bytes=bytes_ratio,
        energy=energy,
        errors=errors,
    )


def _fastest_step(costs: DeviceCosts, name: str) -> StepRow | None:
    """Choose the faster of fp32 and 16 bits; None where neither has a time."""
    rows = [
        costs.row(name, "base", "plain", precision, COMPARED_BATCH, paper.TABLE_2_SECONDS)
        for precision in ("fp32", "mixed")
    ]
    return min(
        (row for row in rows if row.step_seconds), key=lambda row: row.step_seconds or 0.0, default=None
    )
