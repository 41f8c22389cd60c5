"""The process: XLA flags, child processes, progress, files, provenance."""
