"""Commands, presets and reports: where model, federation and profiling meet."""
