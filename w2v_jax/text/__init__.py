"""Transcripts: rules, tokenizers and their files."""
