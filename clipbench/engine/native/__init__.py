"""Programs in compiled kernels of our own: each lane's step runs from end to end in the cache of a core."""
