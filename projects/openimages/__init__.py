"""Open Images instance segmentation on MMDetection.

Layers, each importing only from those above it:

1. ``labels``: classes, hierarchy, expansion
2. ``masks``: RLE, submission text
3. ``metric``: the challenge metric, on arrays and RLEs
4. ``annotations``: official files to one prepared index; ``challenge_csv``,
   ``index_ground_truth``, ``challenge_evaluation``: the metric on the evaluator's CSVs and on an
   index; ``score_report``: its tables
5. ``submissions``: Kaggle and TF CSVs: read, write, check, sweep, merge
6. ``mm``: the parts registered with MMDetection

Beside them ``support`` (errors, whole files, progress), ``drawing`` and ``contact_sheets``
(pictures), ``demo_data`` and ``steps`` (``make demo``).

Importing this package loads nothing: everything but ``mm`` works without torch.
"""
