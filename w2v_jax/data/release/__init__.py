"""A release as its user has it: the tarball or the unpacked folder, and which clip is in which split."""
