"""Assigner, mask head and test-time augmentation."""
