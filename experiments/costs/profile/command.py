"""Parse `w2v-jax profile`, compute the profile and write its report."""

import dataclasses
from pathlib import Path
from typing import Literal

from experiments.options import arguments
from experiments.options.errors import UsageError
from experiments.process import xla_flags
from experiments.report.writer import write_report
from w2v_jax.config import PresetName
from w2v_jax.memory_methods import names_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileArguments:
    """Price a training step and a federated round. The step is compiled; it runs only with --measure.

    example: w2v-jax profile --model base --seconds 5.5 --batch 4 --out reports/profile
    """

    model: PresetName = "base"
    """Model preset."""
    seconds: float = 5.5
    """Length of each utterance, in seconds."""
    batch: int = 4
    """Utterances in a batch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 round the operands of matrix products; everything else stays fp32. fp16 also scales the
    loss."""
    method: str = "plain"
    """How gradients are computed: method names separated by commas; w2v-jax bench memory --list explains
    them. exact combines all methods that save memory and leave the gradient as it is."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer of a client."""
    clients: int = 10
    """Number of clients of the federated round that is priced."""
    local_steps: int = 25
    """Optimizer steps of each client in that round."""
    device: str | None = None
    """Device whose rates bound the step in the report (roofline). Default: --target, or xavier-nx, the
    paper's typical board."""
    target: str | None = None
    """Device to compile for, which need not be here; its compiler's memory plan is reported. Default: this
    machine."""
    measure: bool = False
    """Also run the step in a child process and report its peak memory and its seconds."""
    out: Path = Path("runs/profile")
    """Folder for profile.json, profile.md and the pictures."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ProfileArguments, argv, "w2v-jax profile")
    _check(options)
    from profiling import targets

    if options.target is not None:
        targets.prepare_environment()
    options.out.mkdir(parents=True, exist_ok=True)
    xla_flags.configure_xla(1)
    from experiments.costs.profile import figures, report
    from experiments.costs.profile.result import profile
    from experiments.costs.step.training_step import StepSettings

    names = [field.name for field in dataclasses.fields(StepSettings)]
    result = profile(
        StepSettings(**{name: getattr(options, name) for name in names}),
        clients=options.clients,
        local_steps=options.local_steps,
        device=options.device,
        target=options.target,
        measure=options.measure,
    )
    pictures = figures.draw(result, options.out)
    print(write_report(options.out, "profile", result, report.markdown))
    print(f"written: {options.out / 'profile.json'}, {', '.join(['profile.md', *pictures])}")


def _check(options: ProfileArguments) -> None:
    """Refuse options that cannot be profiled, before anything heavy is imported.

    Raises:
        UsageError: an option is unknown or out of range, or the compiler for the target is not installed.
    """
    from profiling import targets
    from profiling.devices import DEVICES
    from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ

    with arguments.blaming("--method"):
        names_of(options.method)
    arguments.check_at_least(1, options, "batch", "clients", "local_steps")
    shortest = PRESETS[options.model].receptive_field_samples / SAMPLE_RATE_HZ
    if not shortest <= options.seconds <= 3600:
        raise UsageError(f"--seconds must be between {shortest:g} and 3600, got {options.seconds:g}")
    if options.device is not None:
        arguments.check_choice("--device", options.device, DEVICES)
    if options.device is not None and DEVICES[options.device].bytes_per_second is None:
        raise UsageError(
            f"no roofline for --device {options.device}: its memory bandwidth is not published; "
            "choose a device with a known bandwidth"
        )
    if options.target is not None:
        arguments.check_choice("--target", options.target, targets.TARGETS)
        if (absent := targets.missing(options.target)) is not None:
            raise UsageError(absent)
        if options.measure:
            raise UsageError(
                "--measure runs the step on this machine and --target compiles it for another device: "
                "give one of the two"
            )
