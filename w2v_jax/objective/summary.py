"""Sums over frames -> plain numbers for a log."""

import numpy as np

from w2v_jax.batch import Sums
from w2v_jax.objective import losses


def summarise(sums: Sums) -> dict[str, float]:
    """Compute the means of all sums; histograms become perplexities over all their frames."""
    result = {}
    for name, (total, weight) in sums.items():
        total, weight = np.asarray(total, np.float64), float(np.asarray(weight))
        if name in ("code_counts", "probability_sums"):
            average = total / max(weight, 1.0)
            entropy = -(average * np.log(np.maximum(average, 1e-30))).sum(-1)
            label = "code_perplexity" if name == "code_counts" else "prob_perplexity"
            result[label] = float(np.exp(entropy).sum()) if weight else float("nan")
        elif name == "accuracy_moments":
            result["accuracy_standard_error"] = losses.ratio_standard_error(total)
        elif name == "audio_seconds":
            result[name] = float(total)
        else:
            result[name] = float(total) / weight if weight else float("nan")
    return result
