"""Count the operations of training on a second of audio, for pre-training and recognition."""

from typing import Any

import jax
import jax.numpy as jnp

from experiments.costs.step.training_step import abstract_batch, abstract_key
from profiling import flops
from w2v_jax.batch import LabelledBatch
from w2v_jax.config import SAMPLE_RATE_HZ, ModelConfig
from w2v_jax.objective.pretraining import pretraining_objective
from w2v_jax.recognition.ctc import RecognizerConfig, recognizer

# Recognition is priced at a typical length of read speech, because attention grows with length.
UTTERANCE_SECONDS = 4.5
LABELS = 32


def pretraining_flops_per_second(settings: dict[str, Any]) -> float:
    """Count the operations of a pre-training step's loss and gradients, per second of audio.

    Args:
        settings: settings of a run of `w2v-jax pretrain`.
    """
    objective = pretraining_objective(ModelConfig.from_dict(settings["model_config"]))
    samples = round(settings["crop_seconds"] * SAMPLE_RATE_HZ)
    return _per_second(objective, abstract_batch(settings["batch_size"], samples))


def recognition_flops_per_second(recognizer_settings: dict[str, Any]) -> float:
    """Count the operations of a recognizer's loss and gradients, per second of audio.

    The batch is four utterances of 4.5 s.

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
