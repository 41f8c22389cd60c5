"""Command lines: options, mistakes and spelling."""
