"""The mirror of the store in MLflow: beside training, idempotent, and harmless when it is away."""
