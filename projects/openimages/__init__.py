"""Open Images instance segmentation on MMDetection.

Parts, each importing only from those above it (docs/architecture.md):

0. ``common``: errors for people, whole files, progress, processes, CSV columns
1. ``labels``: classes, hierarchy, expansion
2. ``masks``: RLE, submission text
3. ``metric``: the challenge metric, on arrays and RLEs
4. ``data``: official files to one prepared index, and that to other formats
5. ``challenge``: the metric on files: the evaluator's CSVs, a prepared index, tables
6. ``submissions``: Kaggle and TF CSVs: read, write, check, sweep, merge, dump
7. ``visualization``: pictures of ground truth and detections
8. ``mm``: the parts registered with MMDetection

Beside them ``demo``: demo data in the official layout, and the steps of ``make demo``.

Importing this package loads nothing: everything but ``mm`` works without torch.
"""
