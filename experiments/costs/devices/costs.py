"""Memory and seconds of a training step on every device, by plans, the step-time model and measurements."""

from typing import Any

from experiments import paper
from experiments.costs.devices import paper_seconds as table2
from experiments.costs.devices import plan_surface
from experiments.costs.devices.plan_grid import METHODS
from experiments.costs.devices.records import StepRow
from experiments.costs.step.training_step import StepSettings
from experiments.costs.step.work import Lowered, step_work, surface
from profiling import feasibility, step_time, this_machine
from profiling.device import Device, Precision
from profiling.devices import DEVICES

LIMIT_SECONDS = 60.0
SHORTEST_SECONDS = 0.5


class DeviceCosts:
    """Price steps on devices. A measurement on a device replaces the model's factor for it.

    Args:
        measured: `timings.Measured` of boards.
        headroom: share of the memory that training does not get; by default that of the device's class.
        extra: further devices by name, beside the catalogue.
    """

    def __init__(
        self, measured: list[Any], headroom: float | None = None, extra: dict[str, Device] | None = None
    ):
        self.devices = DEVICES | (extra or {})
        self.headroom = headroom
        self.plan_fit_errors = plan_surface.fit_errors()
        model = step_time.fit(table2.cells())
        # The largest factor between Table 2 and the data sheets alone, over devices and in either direction.
        self.worst_factor = max(max(factor, 1 / factor) for factor in model.factors.values())
        self._source = dict.fromkeys(paper.TABLE_2, "Table 2")
        # (device, model, method, precision, batch, seconds) -> printed or measured seconds of a step, or OOM.
        self._seen: dict[tuple[Any, ...], tuple[float | str, str]] = {
            (name, model_name, "plain", _fp32_or_mixed(half), batch, paper.TABLE_2_SECONDS): (
                value,
                "printed",
            )
            for name, cells in paper.TABLE_2.items()
            for (model_name, batch, half), value in cells.items()
        }
        for m in measured:
            if m.device not in self.devices:
                continue  # the catalogue has no such device to calibrate
            s = m.settings
            if s["optimizer"] == "adamw":
                setting = (s["model"], s["method"], _fp32_or_mixed(s["precision"]), s["batch"], s["seconds"])
                self._seen[m.device, *setting] = (m.seconds or paper.OOM, "measured")
            if m.seconds is None:
                continue  # out of memory
            device = self.devices[m.device]
            work = step_work(StepSettings(**m.settings), device)
            cell = step_time.Cell(table2.name_of(m.key), device, m.settings["precision"], work, m.seconds)
            try:
                model = model.calibrated(cell)
            except ValueError:
                continue  # the catalogue has no rates for the device
            self._source[m.device] = "timings.json"
        self._model = model

    def describe(self, name: str) -> dict[str, Any]:
        """Describe a device, and name the source of its step times."""
        device = self.devices[name]
        return {
            "title": device.title,
            "kind": device.kind,
            "memory_bytes": device.memory_bytes,
            "usable_bytes": feasibility.usable_bytes(device, self.headroom),
            "watts": device.watts,
            "times_by": self._source.get(device.variant_of or name, self._rates(name)),
            "source": device.source,
        }

    def _rates(self, name: str) -> str:
        """Name the source of an uncalibrated device's rates."""
        if name == this_machine.NAME:
            return "rates measured here"
        return "its data sheet alone" if self.devices[name].peak_flops else "nothing"

    def row(self, name: str, model: str, method: str, precision: str, batch: int, seconds: float) -> StepRow:
        """Price one setting on one device: memory, verdict, seconds of a step.

        A printed or measured time goes before a modelled one. A measured OOM goes before a plan; a printed
        OOM does not, since the paper does not say how much memory its boards had.
        """
        device = self.devices[name]
        planned = plan_surface.plan(device, model, method, precision, batch, seconds)
        verdict = plan_surface.judge(planned, feasibility.usable_bytes(device, self.headroom))
        timed_as = device.variant_of or name
        seen, by = self._seen.get((timed_as, model, method, precision, batch, seconds), (None, None))
        if by == "measured" and timed_as == name:
            verdict = "too large" if seen == paper.OOM else "fits"
        modelled = self.step_seconds(device, model, method, precision, batch, seconds)
        return StepRow(
            device=name,
            model=model,
            method=method,
            precision=precision,
            batch=batch,
            seconds=seconds,
            plan_bytes=planned and planned.bytes,
            compiled=planned and planned.compiled,
            verdict=verdict,
            step_seconds=seen if isinstance(seen, float) else modelled,
            time_by=by if isinstance(seen, float) else "modelled" if modelled else None,
        )

    def step_seconds(
        self, device: Device, model: str, method: str, precision: str, batch: int, seconds: float
    ) -> float | None:
        """Model the seconds of a step; None where the device's rates are unknown."""
        device = self.devices[device.variant_of] if device.variant_of else device
        exact = half_of(device) if precision != "fp32" else "fp32"
        if exact is None or exact not in device.peak_flops:
            return None
        platform: Lowered = "cpu" if device.processor == "cpu" else "gpu"
        traced = "fp32" if exact == "fp32" else paper.MIXED
        return self._model.seconds(device, exact, surface(model, traced, method, platform)(batch, seconds))

    def fastest(self, name: str, model: str) -> tuple[float | None, dict[str, Any]]:
        """Find the setting at 5.5 s that fits and has the least time per utterance.

        Returns:
            (seconds of its step, its batch, precision and method); (None, {"batch": None, "why": verdict})
            where no setting fits or no time is known.
        """
        rows = [
            self.row(name, model, method, precision, batch, paper.TABLE_2_SECONDS)
            for method in METHODS
            for precision in ("fp32", "mixed")
            for batch in (1, 4)
        ]
        fitting = [(row.step_seconds, row) for row in rows if row.verdict == "fits" and row.step_seconds]
        if not fitting:
            return None, {"batch": None, "why": rows[0].verdict}
        step, best = min(fitting, key=lambda pair: pair[0] / pair[1].batch)
        return step, {"batch": best.batch, "precision": best.precision, "method": best.method}

    def longest(self, name: str, model: str, method: str) -> dict[str, Any]:
        """Find the longest clip at batch 1 in fp32; None where no clip fits or the memory is unknown."""
        device = self.devices[name]
        usable = feasibility.usable_bytes(device, self.headroom)
        if usable is None or plan_surface.plan(device, model, method, "fp32", 1, SHORTEST_SECONDS) is None:
            return {"device": name, "model": model, "method": method, "known": False, "seconds": None}

        def needed(seconds: float) -> float:
            planned = plan_surface.plan(device, model, method, "fp32", 1, seconds)
            assert planned is not None
            return planned.bytes

        found = feasibility.longest(needed, usable, SHORTEST_SECONDS, LIMIT_SECONDS)
        return {"device": name, "model": model, "method": method, "known": True, "seconds": found}


def _fp32_or_mixed(precision: str) -> str:
    return "fp32" if precision == "fp32" else "mixed"


def half_of(device: Device) -> Precision | None:
    """Return a device's 16-bit precision: bf16 where it has it, else fp16; None where neither is known."""
    halves: tuple[Precision, Precision] = ("bf16", "fp16")
    return next((half for half in halves if half in device.peak_flops), None)
