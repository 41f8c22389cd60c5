"""Models of other software: Hugging Face, fairseq, plain jax.numpy."""
