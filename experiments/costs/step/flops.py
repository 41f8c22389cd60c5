"""Operations of training a second of audio, pre-training and recognition, counted from traced programs."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.costs.step.training_step import abstract_batch, abstract_key
from profiling import flops
from w2v_jax.batch import LabelledBatch
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer

# A middling utterance of read speech, for recognition: attention grows with length.
UTTERANCE_SECONDS = 4.5
LABELS = 32


def pretraining_flops_per_second(settings: dict[str, Any]) -> float:
    """Loss and gradients of a pre-training step over its seconds of audio; without the optimizer.

    Args:
        settings: of a run of `w2v-jax pretrain`.
    """
    objective = pretraining_objective(ModelConfig.from_dict(settings["model_config"]))
    samples = round(settings["crop_seconds"] * SAMPLE_RATE_HZ)
    return _per_second(objective, abstract_batch(settings["batch_size"], samples))


def recognition_flops_per_second(recognizer_settings: dict[str, Any]) -> float:
    """The same of a recognizer, at batches of four utterances of 4.5 s.

    Args:
        recognizer_settings: recognizer.json of a run of `w2v-jax finetune`.
    """
    config = RecognizerConfig.from_dict(recognizer_settings)
    plain = abstract_batch(4, round(UTTERANCE_SECONDS * SAMPLE_RATE_HZ))
    rows = plain.num_samples.shape[0]
    batch = LabelledBatch._make(
        (
            *plain,
            jax.ShapeDtypeStruct((rows, LABELS), jnp.int32),
            jax.ShapeDtypeStruct((rows,), jnp.int32),
        )
    )
    return _per_second(recognizer(config).objective, batch)


def _per_second(objective: Any, batch: Any) -> float:
    parameters, state = jax.eval_shape(objective.init, jax.random.key(0))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    report = flops.count(objective.value_and_grad, parameters, state, batch, abstract_key(), step)
    rows, samples = batch.waveform.shape
    return report.total.flops / (rows * samples / SAMPLE_RATE_HZ)
