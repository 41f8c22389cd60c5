"""Frozen results of transformers, with the script (make_fixtures.py) and versions that made them."""

import numpy as np
import pytest

from tests.configs import VARIANTS
from tests.parity import compare
from tests.paths import GOLDEN
from w2v_jax.interop import huggingface_names


def section(arrays, name):
    return {key.split("/", 1)[1]: arrays[key] for key in arrays if key.startswith(f"{name}/")}


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("layer-norm", "product"),
        ("group-norm", "lax"),
        pytest.param("layer-norm", "lax", marks=pytest.mark.slow),
        pytest.param("group-norm", "product", marks=pytest.mark.slow),
    ],
)
def test_agrees_with_frozen_transformers(name, form):
    with np.load(GOLDEN / f"transformers-{name}.npz") as arrays:
        config = VARIANTS[name].replace(convolution_form=form)
        parameters = huggingface_names.from_state_dict(section(arrays, "weight"), config)
        losses = {key: float(value) for key, value in section(arrays, "loss").items()}
        compare.check(
            config,
            parameters,
            section(arrays, "input"),
            section(arrays, "intermediate"),
            losses,
            section(arrays, "gradient"),
        )
