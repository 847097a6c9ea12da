"""PyTorch layers in forms that are fast under `vmap` over many models."""
