"""Freeze transformers' results for the small models: python -m tests.parity.make_fixtures.

Run in an environment with torch and transformers; versions are stored beside the arrays.
"""

import numpy as np
import torch
import transformers

from tests.configs import VARIANTS
from tests.parity import reference
from tests.paths import GOLDEN

NUM_SAMPLES = [700, 520, 611]


def main() -> None:
    """Write one file per variant."""
    for number, (name, config) in enumerate(VARIANTS.items()):
        model = reference.random_model(config, seed=number)
        inputs = reference.make_inputs(config, NUM_SAMPLES, seed=number)
        intermediates, losses, gradients = reference.run(config, model, inputs)
        arrays = {f"input/{k}": v for k, v in inputs.items()}
        arrays |= {f"intermediate/{k}": v for k, v in intermediates.items()}
        arrays |= {f"loss/{k}": np.float64(v) for k, v in losses.items()}
        arrays |= {f"gradient/{k}": v for k, v in gradients.items()}
        arrays |= {f"weight/{k}": v.detach().numpy() for k, v in model.named_parameters()}
        arrays["versions"] = np.array(f"torch {torch.__version__}, transformers {transformers.__version__}")
        np.savez_compressed(GOLDEN / f"transformers-{name}.npz", **arrays)


if __name__ == "__main__":
    main()
