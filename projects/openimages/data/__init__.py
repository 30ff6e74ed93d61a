"""From the official files to one prepared index, and from the index to other formats."""
