"""Where chunks are trained: in worker processes of this machine."""
