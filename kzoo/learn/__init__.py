"""Training: fit in phases, optimizers by name, exact-resume checkpoints, evaluation."""
