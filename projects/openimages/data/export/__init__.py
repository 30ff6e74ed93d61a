"""A prepared index in other programs' formats."""
