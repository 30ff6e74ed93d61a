"""Submissions: the challenge's two CSV formats, read, written, checked, swept and merged."""
