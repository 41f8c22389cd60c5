"""Judging a frozen encoder by what simple classifiers can read from its frames."""
