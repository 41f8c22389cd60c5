"""The wav2vec 2.0 model, waveform to predictions."""
