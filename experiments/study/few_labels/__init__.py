"""`w2v-jax study few-labels`: fine-tune pre-trained and untrained encoders with few labels."""
