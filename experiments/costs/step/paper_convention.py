"""Count parameters and forward FLOPs by module, in the convention of the paper's Table 1."""

import math
from collections.abc import Callable
from typing import Any

MODULES = {
    "cnn_encoder": ("feature_encoder", "feature_projection"),
    "transformer": ("context_network",),
    "quantization": ("quantizer", "project_context", "project_quantized", "prediction"),
}
ALL = tuple(name for names in MODULES.values() for name in names)


# Table 1's row of quantization counts the projections' operations but not their parameters.
PARAMETER_MODULES = MODULES | {"quantization": ("quantizer", "prediction")}


def module_costs(config: Any, seconds: float, batch: int) -> dict[str, dict[str, int]]:
    """Count parameters and forward operations by module of Table 1, the total included.

    Args:
        config: ModelConfig.
        seconds: length of each utterance.
        batch: utterances.

    Returns:
        module -> {"params", "flops_paper", "flops_full"}. `flops_paper` counts multiply-adds and the biases
        of linear layers, except in the CNN encoder's row, whose printed value has no biases; biases of
        convolutions are in no row. `flops_full` counts products, taps on padding, elementwise and
        transcendental work.
    """
    import jax
    import jax.numpy as jnp

    from profiling.flops import Cost, count
    from profiling.module_counter import count_modules
    from w2v_jax.config import SAMPLE_RATE_HZ
    from w2v_jax.objective.pretraining import bind_model

    # The convention prices convolutions as such, whatever form computes them.
    config = config.replace(convolution_form="lax")
    init, _ = bind_model(config)
    forward = _forward(config)
    samples = round(seconds * SAMPLE_RATE_HZ)
    parameters = jax.eval_shape(init, jax.random.key(0))
    inputs = (
        jax.ShapeDtypeStruct((batch, samples), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch, config.num_frames(samples)), jnp.bool_),
    )
    layers = count_modules(forward, parameters, *inputs)
    everything = count(forward, parameters, *inputs).rows

    def inside(scope: str, names: tuple[str, ...]) -> bool:
        return any(part in names for part in scope.split("/")[:2])

    # Between the modules there is only the masking of frames. It counts as the transformer's.
    between = sum((cost for (scope, _), cost in everything.items() if not inside(scope, ALL)), Cost())
    rows = {}
    for module, names in MODULES.items():
        own = [parameters.get(name) for name in PARAMETER_MODULES[module]]
        full = sum((cost for (scope, _), cost in everything.items() if inside(scope, names)), Cost())
        full = full + between if module == "transformer" else full
        rows[module] = {
            "params": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(own)),
            "flops_paper": sum(
                cost.products + cost.linear_bias * (module != "cnn_encoder")
                for scope, cost in layers.items()
                if inside(scope, names)
            ),
            "flops_full": full.flops + full.padding_products,
        }
    rows["total"] = {
        key: sum(row[key] for row in rows.values()) for key in ("params", "flops_paper", "flops_full")
    }
    return rows


def _forward(config: Any) -> Callable:
    """Build the forward pass that is counted; BEST-RQ's includes the codes and the scores of every frame."""
    from w2v_jax.model.best_rq import target_codes
    from w2v_jax.objective.pretraining import bind_model

    _, apply = bind_model(config)
    if config.objective != "best-rq":
        return apply

    def best_rq(parameters: Any, *inputs: Any) -> Any:
        encoded, _ = apply(parameters, *inputs)
        return apply(parameters, encoded.context, method="logits"), target_codes(config, encoded.features)

    return best_rq
