"""`w2v-jax finetune` and `transcribe`: recognizers."""
