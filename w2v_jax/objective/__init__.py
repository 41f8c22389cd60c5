"""The pre-training objective: masks, negatives, losses, gradients."""
