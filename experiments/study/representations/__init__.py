"""The study of what pre-trained encoders are good for: probes of frozen frames, arm by arm and seed by seed."""
