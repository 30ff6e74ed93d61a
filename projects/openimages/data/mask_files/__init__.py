"""Mask PNGs: found in folders and archives, decoded to bits, encoded as run lengths."""
