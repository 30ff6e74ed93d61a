"""A submission written while a model is tested: part files, then one file in order."""
