"""Holds a reference's intermediates, losses and gradients against ours."""

import jax
import jax.numpy as jnp
import numpy as np

from w2v_jax.config import ModelConfig
from w2v_jax.interop import huggingface_names
from w2v_jax.objective.pretraining import Draws, bind_model, loss_and_sums, summarise

INTERMEDIATE_TOLERANCE = 1e-4
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-3
NEGLIGIBLE_SHARE = 1e-6  # of the global gradient norm (k_proj.bias has a true gradient of zero)

# The reference's module outputs do not show these; each follows from one that is compared.
OURS_ALONE = {"layers_input", "features", "probabilities", "codes"}


def ours(config: ModelConfig, parameters: dict, inputs: dict[str, np.ndarray]):
    """(intermediates, losses, gradients by transformers' names) of our model."""
    config = config.replace(encoder_gradient_scale=1.0, feature_penalty_weight=0.0)
    _, apply = bind_model(config)
    mask = jnp.asarray(inputs["mask"])
    draws = Draws(mask, jnp.asarray(inputs["negatives"]))

    def loss(parameters):
        predictions, out = apply(
            parameters,
            jnp.asarray(inputs["waveform"]),
            jnp.asarray(inputs["num_samples"]),
            mask,
            gumbel_noise=jnp.asarray(inputs["noise"]),
            gumbel_temperature=jnp.asarray(inputs["temperature"]),
        )
        total, sums = loss_and_sums(config, predictions, draws)
        return total, (out, sums)

    (_, (out, sums)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(parameters)
    out = {name: np.asarray(value) for name, value in out.items()}
    for index, hidden in enumerate(out.pop("hidden_layers")):
        out[f"hidden_layers_{index}"] = hidden
    return out, summarise(jax.device_get(sums)), huggingface_names.to_state_dict(gradients, config)


def check(
    config: ModelConfig, parameters: dict, inputs, intermediates, losses, gradients
) -> dict[str, float]:
    """Assert agreement; returns the largest relative difference of each kind."""
    out, our_losses, our_gradients = ours(config, parameters, inputs)
    valid = (
        np.arange(inputs["mask"].shape[1])[None]
        < np.array([config.num_frames(int(n)) for n in inputs["num_samples"]])[:, None]
    )
    worst = {"intermediate": 0.0, "loss": 0.0, "gradient": 0.0}
    assert set(out) - set(intermediates) == OURS_ALONE, set(out) ^ set(intermediates)
    for name, expected in intermediates.items():
        actual = out[name]
        if expected.shape[1] == valid.shape[1]:  # padded frames mean nothing
            expected, actual = expected[valid], actual[valid]
        difference = relative(actual, expected)
        worst["intermediate"] = max(worst["intermediate"], difference)
        assert difference < INTERMEDIATE_TOLERANCE, (name, difference)
    for name in ("loss", "contrastive", "diversity", "prob_perplexity"):
        difference = abs(our_losses[name] - losses[name]) / abs(losses[name])
        worst["loss"] = max(worst["loss"], difference)
        assert difference < LOSS_TOLERANCE, (name, our_losses[name], losses[name])
    assert set(gradients) == set(our_gradients)
    total = np.sqrt(sum(float(np.square(g).sum()) for g in gradients.values()))
    for name, expected in gradients.items():
        norms = [float(np.linalg.norm(g)) for g in (our_gradients[name], expected)]
        if max(norms) < NEGLIGIBLE_SHARE * total:
            continue
        difference = relative(our_gradients[name], expected)
        worst["gradient"] = max(worst["gradient"], difference)
        assert difference < GRADIENT_TOLERANCE, (name, difference)
    return worst


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    """Relative difference in norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
