"""One split's official files to its prepared index, report and exports, in resumable shards."""
