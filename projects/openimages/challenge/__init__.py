"""The challenge metric on files: the evaluator's CSVs or a prepared index in, a score out."""
