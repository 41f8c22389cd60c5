"""Run `python -m experiments COMMAND`: the same as `w2v-jax COMMAND`."""

import sys

from experiments.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
