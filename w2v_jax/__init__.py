"""wav2vec 2.0 in Flax: the model and its mathematics, from waveform to loss."""
