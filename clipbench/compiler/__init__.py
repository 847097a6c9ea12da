"""A compiler for functions of tensors: it traces a function of one lane and runs it for many by kernels in C.

A graph of PyTorch operators (`trace`) is rewritten (`rewrites`), each value gets its memory (`placement`), and each
operator becomes records (`encode`, `operators/`), which kernels compute (`kernels/`, compiled by `library`).
"""
