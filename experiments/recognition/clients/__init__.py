"""Fine-tuning across clients, and models that are adapted to each client."""
