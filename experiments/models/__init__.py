"""Models on disk: encoders, recognizers, conversion."""
