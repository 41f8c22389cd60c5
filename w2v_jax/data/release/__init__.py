"""Read a release as its user has it, a tarball or an unpacked folder, and assign its clips to splits."""
