"""A compiler for training steps: traces a function, rewrites its graph, and runs it as a fixed list of kernels."""
