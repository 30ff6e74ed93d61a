"""Checkpoints, configs, loops and processes, and prediction outside a runner."""
