"""Batches of clips: crops, length buckets, labels, augmentation."""
