"""Checkpoints, configs, loops, and prediction outside a runner."""
