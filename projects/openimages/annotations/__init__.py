"""Layer 4: official CSVs and mask archives become one prepared index a split."""
