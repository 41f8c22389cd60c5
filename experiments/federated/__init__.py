"""Settings of federated algorithms that several commands share."""
