"""The work that all runners of `bench rounds` do: first parameters, batches, and every random choice."""

import dataclasses
from pathlib import Path

import numpy as np

from experiments.peers import toy
from experiments.peers.protocol import write_work

TINY_SECONDS, TINY_BATCH, TINY_STEPS, TINY_RATE = 1.0, 4, 4, 0.01


def write(path: Path, kind: str, clients: int) -> None:
    """Write a workload of so many clients."""
    if kind == "toy":
        about = {"learning_rate": toy.LEARNING_RATE}
        write_work(path, kind, toy.parameters(), toy.batches(clients), about)
    else:
        _write_tiny(path, clients)


def _write_tiny(path: Path, clients: int) -> None:
    import jax

    from w2v_jax import huggingface
    from w2v_jax.config import SAMPLE_RATE_HZ, TINY
    from w2v_jax.objective import bind_model

    # transformers scales no gradient and knows no penalty on features.
    config = TINY.replace(encoder_gradient_scale=1.0, feature_penalty_weight=0.0)
    init, _ = bind_model(config)
    parameters = huggingface.to_state_dict(jax.device_get(init(jax.random.key(0))), config)
    samples = round(TINY_SECONDS * SAMPLE_RATE_HZ)
    frames, rng = config.num_frames(samples), np.random.default_rng(0)
    shape = (clients, TINY_STEPS, TINY_BATCH)
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
    about = {"learning_rate": TINY_RATE, "config": dataclasses.asdict(config)}
    write_work(path, "tiny", parameters, batches, about)
