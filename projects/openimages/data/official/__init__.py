"""The official CSVs and image headers, checked and joined."""
