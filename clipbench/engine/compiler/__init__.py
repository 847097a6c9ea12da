"""A compiler for training steps: it traces a function, rewrites its graph and runs it as a list of kernels."""
