"""The work that all runners of `bench rounds` do: first parameters, batches and every random choice."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.rounds.peers import dense, toy
from experiments.bench.rounds.peers.protocol import write_work


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speech:
    """wav2vec 2.0's loss on noise: the model and the steps of a client."""

    model: str
    seconds: float
    batch: int
    steps: int
    learning_rate: float = 0.01
    optimizer: str = "sgd"
    precision: str = "fp32"


TINY = Speech(model="tiny", seconds=1.0, batch=4, steps=4)
BASE_STEP = Speech(model="base", seconds=5.5, batch=1, steps=1, learning_rate=1e-3)
# AdamW's steps are as large as its rate, whatever the gradient. At a larger rate, rounding alone would soon
# drive runners apart.
BASE = Speech(
    model="base",
    seconds=5.5,
    batch=4,
    steps=2,
    learning_rate=3e-6,
    optimizer="adamw",
    precision="bf16",
)
SPEECH = {"tiny": TINY, "step": BASE_STEP, "base": BASE}
REGRESSIONS = {"toy": toy, "dense": dense}


def precision(kind: str) -> str:
    """Return the precision of a workload's products."""
    return SPEECH[kind].precision if kind in SPEECH else "fp32"


def steps(kind: str) -> int:
    """Return the local steps of a client."""
    return SPEECH[kind].steps if kind in SPEECH else REGRESSIONS[kind].STEPS


def audio_seconds(kind: str) -> float | None:
    """Return the seconds of audio of a local step; None for a workload without audio."""
    if kind in SPEECH:
        return SPEECH[kind].batch * SPEECH[kind].seconds
    return None


def step_flops(kind: str, path: Path) -> int:
    """Count the operations of the products of one local step, forward and backward, without taps on padding.

    Args:
        kind: name of the workload.
        path: file of the workload.
    """
    import jax

    from experiments.bench.rounds.peers.jax_models import local_training, model
    from experiments.bench.rounds.peers.protocol import Work
    from profiling import flops
    from w2v_jax import platforms

    work = Work(str(path))
    # Count plain convolutions, whatever form they take on a device.
    with platforms.lowering_for("cpu"):
        plain = model(work, "lax", precision(kind))
        training = local_training(plain, work)
        carried: Any = jax.eval_shape(training.start, plain.parameters)
        return flops.count(training.step, carried, work.batch(0, 0)).total.products


def write(path: Path, kind: str, clients: int) -> None:
    """Write a workload for a number of clients: toy, dense, tiny, base, or one step of base (`step`)."""
    if kind in REGRESSIONS:
        module = REGRESSIONS[kind]
        about = {"learning_rate": module.LEARNING_RATE}
        write_work(path, kind, module.parameters(), module.batches(clients), about)
    else:
        write_speech(path, SPEECH[kind], clients)


def write_speech(path: Path, speech: Speech, clients: int) -> None:
    """Write a speech workload whose batches hold every random choice: masks, negatives, Gumbel noise."""
    import jax

    from w2v_jax.config import PRESETS, SAMPLE_RATE_HZ
    from w2v_jax.interop import huggingface_names
    from w2v_jax.objective.pretraining import bind_model

    # transformers scales no gradient and has no penalty on features.
    config = PRESETS[speech.model].without_dropout()
    config = config.replace(encoder_gradient_scale=1.0, feature_penalty_weight=0.0)
    init, _ = bind_model(config)
    parameters = huggingface_names.to_state_dict(jax.device_get(jax.jit(init)(jax.random.key(0))), config)
    samples = round(speech.seconds * SAMPLE_RATE_HZ)
    frames, rng = config.num_frames(samples), np.random.default_rng(0)
    shape = (clients, speech.steps, speech.batch)
    masked = frames // 2
    mask = np.zeros((*shape, frames), bool)
    negatives = np.zeros((*shape, frames, config.num_negatives), np.int32)
    for row in np.ndindex(*shape):
        places = np.sort(rng.permutation(frames)[:masked])
        mask[row][places] = True
        others = rng.integers(0, masked - 1, (masked, config.num_negatives))
        others += others >= np.arange(masked)[:, None]
        negatives[row][places] = places[others]
    codes = (config.codebook_groups, config.codebook_entries)
    batches = {
        "waveform": (0.1 * rng.standard_normal((*shape, samples))).astype(np.float32),
        "mask": mask,
        "negatives": negatives,
        "noise": rng.gumbel(size=(*shape, frames, *codes)).astype(np.float32),
    }
    about = {
        "learning_rate": speech.learning_rate,
        "optimizer": speech.optimizer,
        "model": speech.model,
        "config": dataclasses.asdict(config),
    }
    write_work(path, "speech", parameters, batches, about)
