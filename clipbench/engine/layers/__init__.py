"""PyTorch layers in forms that stay fast under `vmap` over many models."""
