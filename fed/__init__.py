"""Federated rounds over any objective."""
