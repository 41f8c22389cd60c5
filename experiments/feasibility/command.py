"""`w2v-jax feasibility`: judge which devices could pre-train, by memory, time, bytes and energy."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

from experiments import paper
from experiments.costs.devices.plan_grid import METHODS
from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.options.spelling import nearest
from experiments.process import xla_flags
from experiments.process.provenance import record_provenance
from experiments.report.writer import write_report

LONGEST_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeasibilityArguments:
    """Judge federated pre-training on every device by memory, time, bytes and energy (minutes).

    example: w2v-jax feasibility --device xavier-nx orin-nx --link lte --out reports/feasibility
    """

    out: Path
    """Folder for feasibility.json, feasibility.md and PNGs."""
    devices: tuple[str, ...] = ()
    """Devices to judge: names in the catalogue (profiling/devices.py), or this-machine, whose rates are
    measured. Default: the A40, and all boards, phones and computers whose memory is known."""
    models: tuple[Literal["base", "large", "best-rq-tiny", "best-rq-small", "best-rq-base"], ...] = (
        "base",
        "large",
    )
    """Model presets to price. No memory plans of compilers are kept for best-rq: its memory is unknown."""
    seconds: tuple[float, ...] = (1.0, 2.0, 3.0, 5.5, 12.0, 15.0)
    """Lengths of utterances, in seconds."""
    batch: tuple[int, ...] = (1, 4, 8)
    """Utterances in a batch."""
    precision: tuple[Literal["fp32", "mixed"], ...] = ("fp32", "mixed")
    """Precision of the operands of matrix products. mixed is bf16 where the device has it, otherwise fp16."""
    method: tuple[str, ...] = METHODS
    """How gradients are computed: plain, remat (layers are computed again in the backward pass) or exact (all
    methods that save memory and leave the gradient as it is)."""
    rounds: int | None = None
    """Rounds of the whole run. Default: as many local epochs as the paper's two weeks on an A40 hold."""
    clients: int = 10
    """Number of clients that share the corpus; all take part in every round."""
    hours: float = paper.VALIDATED_HOURS
    """Hours of speech of all clients together."""
    link: str = "lte"
    """Link of each client: ethernet, gigabit, wifi-n, lte (nominal), or DOWN/UP in Mbit/s, such as 20/5."""
    fleet: tuple[str, ...] = ("xavier-nx=8", "rpi-4=2")
    """Clients of one example round, as NAME=COUNT; the slowest decides how long the round takes."""
    headroom: float | None = None
    """Share of memory left to other programs. Default: 0.25, and 0.5 on phones."""
    timings: tuple[Path, ...] = ()
    """Files that runner.py wrote on boards; each corrects the estimate for its device. Default: none."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(FeasibilityArguments, argv, "w2v-jax feasibility")
    devices, fleet, link = check(options)
    from experiments.costs.devices import plan_surface
    from experiments.costs.devices.timings import read_timings
    from experiments.feasibility.figures import draw
    from experiments.feasibility.pricing import feasibility
    from experiments.feasibility.report import markdown

    with arguments.blaming("--timings"):
        measured = [read_timings(path) for path in options.timings]
    plan_surface.kept()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    result = feasibility(options, devices, fleet, link, measured)
    result["provenance"] = record_provenance("feasibility")
    print(write_report(options.out, "feasibility", result, markdown, draw))
    print(f"written: {options.out / 'feasibility.json'}, feasibility.md, verdicts.png, time.png, memory.png")


def check(options: FeasibilityArguments) -> tuple[list[str], dict[str, int], Any]:
    """Look up devices, fleet and link.

    Raises:
        UsageError: an option's value is not possible.
    """
    from profiling import this_machine
    from profiling.devices import DEVICES

    known = (*DEVICES, this_machine.NAME)
    for method in options.method:
        arguments.check_choice("--method", method, METHODS)
    for name in ("clients", "hours", "rounds"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} must be positive and finite, got {value}")
    if any(not 0.1 <= value <= LONGEST_SECONDS for value in options.seconds):
        raise UsageError(f"--seconds must be between 0.1 and {LONGEST_SECONDS:g}")
    arguments.check_at_least(1, options, "batch")
    if options.headroom is not None and not 0 <= options.headroom < 1:
        raise UsageError(f"--headroom is a share between 0 and 1, got {options.headroom:g}")
    default = [
        name
        for name, device in DEVICES.items()
        if device.kind != "server" and device.memory_bytes is not None
    ]
    for name in options.devices:
        arguments.check_choice("--device", name, known)
    devices = list(options.devices) or ["a40", *default]
    fleet: dict[str, int] = {}
    for word in options.fleet:
        name, _, count = word.partition("=")
        if not count.isdigit() or int(count) < 1:
            raise UsageError(f"--fleet takes NAME=COUNT such as xavier-nx=8, got '{word}'")
        arguments.check_choice("--fleet", name, known)
        fleet[name] = fleet.get(name, 0) + int(count)
    return devices, fleet, _link(options.link)


def _link(words: str) -> Any:
    """Look up a link, or make one of DOWN/UP."""
    from profiling.feasibility import LINKS, Link

    if words in LINKS:
        return LINKS[words]
    try:
        down, up = (float(rate) for rate in words.split("/"))
        if not (0 < down < float("inf") and 0 < up < float("inf")):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"{nearest(words, list(LINKS), '--link')}, or give DOWN/UP in Mbit/s such as 20/5"
        ) from None
    return Link(f"{down:g} down and {up:g} up, Mbit/s", down, up, "given")
