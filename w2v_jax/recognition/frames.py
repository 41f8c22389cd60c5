"""The frames that a head scores: an encoder's, or log-mel features without an encoder."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

from w2v_jax.config import LOG_MEL_HOP_SAMPLES, ModelConfig
from w2v_jax.model import log_mel
from w2v_jax.model.frame_counts import frame_lengths, valid_frames
from w2v_jax.model.wav2vec2 import DropoutKeys, Encoder, Frozen
from w2v_jax.objective.pretraining import bind

Features = Literal["encoder", "log-mel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FramesConfig:
    """The frames that a head scores: the encoder, the input features, and which parameters are frozen."""

    model: ModelConfig
    features: Features = "encoder"
    frozen: Frozen = "none"

    @property
    def feature_dim(self) -> int:
        """Width of the head's input."""
        return self.model.hidden_dim if self.features == "encoder" else log_mel.FEATURE_DIM

    @property
    def frame_samples(self) -> int:
        """Samples from one frame of the scores to the next."""
        if self.features == "encoder":
            return self.model.frame_samples
        return LOG_MEL_HOP_SAMPLES * log_mel.STACKED

    def frame_lengths(self, num_samples: Int[Array, " batch"]) -> Int[Array, " batch"]:
        """Count the frames of utterances of `num_samples`."""
        if self.features == "encoder":
            return frame_lengths(num_samples, self.model)
        return log_mel.frame_lengths(num_samples)


class Frames(NamedTuple):
    """The frames of a batch.

    Attributes:
        last: the last layer's frames, or log-mel features.
        valid: frames that are not padding.
        layers: the input of the first layer, then the output of each, the last as `last`; empty for log-mel.
    """

    last: Float[Array, "batch time dim"]
    valid: Bool[Array, "batch time"]
    layers: tuple[Float[Array, "batch time dim"], ...]


def frames_of(config: FramesConfig) -> tuple[Callable, Callable]:
    """Build (init, apply) of the frames of one configuration.

    `init(key)` makes the encoder's parameters, none for log-mel features.
    `apply(parameters, waveform, num_samples, dropout_keys)` computes `Frames`; None in place of the keys
    means no dropout.
    """
    if config.features == "log-mel":

        def features(parameters, waveform, num_samples, dropout_keys: DropoutKeys | None) -> Frames:
            x = log_mel.log_mel(waveform)
            valid = valid_frames(log_mel.frame_lengths(num_samples), x.shape[1])
            return Frames(log_mel.normalised(x, valid), valid, ())

        return lambda key: {}, features

    model = config.model.replace(encoder_gradient_scale=1.0)
    init, encode = bind(lambda key: Encoder(model, key))

    def encoded(parameters, waveform, num_samples, dropout_keys: DropoutKeys | None) -> Frames:
        found, outputs = encode(
            parameters,
            waveform,
            num_samples,
            # A frozen encoder is used without dropout.
            dropout_keys=None if config.frozen == "encoder" else dropout_keys,
            frozen=config.frozen,
            method="encode",
        )
        layers = (outputs["layers_input"], *outputs["hidden_layers"][:-1])
        if config.frozen == "encoder":
            layers = jax.lax.stop_gradient(layers)
        return Frames(found.context, found.valid, (*layers, found.context))

    return init, encoded
