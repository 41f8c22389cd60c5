"""Live comparison with transformers (make parity): both variants, and once the full base model."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="make parity installs torch and transformers")

from tests.configs import VARIANTS
from tests.parity import compare, reference
from w2v_jax.config import BASE
from w2v_jax.interop import huggingface_names

pytestmark = pytest.mark.parity


def run_comparison(config, num_samples, seed):
    model = reference.random_model(config, seed)
    inputs = reference.make_inputs(config, num_samples, seed)
    results = reference.run(config, model, inputs)
    state = {name: p.detach().numpy() for name, p in model.named_parameters()}
    parameters = huggingface_names.from_state_dict(state, config)
    worst = compare.check(config, parameters, inputs, *results)
    print(f"\n{worst}")
    back = huggingface_names.to_state_dict(parameters, config)
    assert all(np.array_equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_variants_agree_with_transformers(name, seed):
    run_comparison(VARIANTS[name], [900, 640, 731, 900], seed)


def test_full_base_agrees_with_transformers():
    run_comparison(BASE, [32_000, 26_000], 0)
