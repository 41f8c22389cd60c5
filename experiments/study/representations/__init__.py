"""The study of what pre-trained encoders know: probes of frozen frames, arm by arm and seed by seed."""
