"""The challenge metric, the submission dump and pictures, at test time."""
