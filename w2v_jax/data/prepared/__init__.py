"""Prepared data sets: decoded once into shards."""
