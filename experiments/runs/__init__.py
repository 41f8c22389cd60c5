"""Run folders: settings, metrics, TensorBoard events."""
