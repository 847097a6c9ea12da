"""MLflow: a background process copies the store to it, without duplicates; training never depends on it."""
