"""The official files over the network, into the layout that preparing reads: docs/download.md."""
