"""The engine of federated rounds: compiled programs, blocks of batches, lanes, and the states of clients."""
