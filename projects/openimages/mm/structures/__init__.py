"""Masks as MMDetection's pipelines and heads carry them."""
