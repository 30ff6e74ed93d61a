"""MMDetection imported without what it says about packages that this project does not use.

It prints a line for each place that would use OneDL, and warns that ``faster_coco_eval`` is
missing, at every start of every command.
"""

import contextlib
import io
import warnings

with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
    warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
    import mmdet.datasets
    import mmdet.evaluation  # noqa: F401
