"""Dataset, loading, transforms and samplers."""
