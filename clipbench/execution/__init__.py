"""Training in worker processes of this machine: which process trains which chunk, and what happens if one dies."""
