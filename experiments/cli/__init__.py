"""The `w2v-jax` command: finds the subcommand and runs it."""
