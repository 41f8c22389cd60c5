"""Recognise the pointers that a clone without Git LFS holds in place of large files."""

POINTER = b"version https://git-lfs.github.com/spec/"  # every pointer starts so
ADVICE = "run `git lfs pull` where it was cloned"
