"""Learning from hierarchical, federated labels: targets, box head, RoI heads, and peers' losses."""
