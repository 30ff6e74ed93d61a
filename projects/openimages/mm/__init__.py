"""The MMDetection parts. Importing this package fills MMDetection's registries.

Configs do so with ``custom_imports = dict(imports=['projects.openimages.mm'])``.
"""

from projects.openimages.mm import quiet_imports  # noqa: F401  # first: what comes after imports MMDetection
from projects.openimages.mm.datasets import (  # noqa: F401
    loading,
    openimages,
    rle_transforms,
    samplers,
    soft_sampler,
    transforms,
    unreadable,
)
from projects.openimages.mm.engine import hooks, loops, mmengine_internals  # noqa: F401
from projects.openimages.mm.evaluation import (  # noqa: F401
    challenge_metric,
    class_scores,
    coco_metric,
    dump_det_results,
    submission_dump,
    visualization_hook,
)
from projects.openimages.mm.models import (  # noqa: F401
    assigners,
    batch_rpn,
    coders,
    fast,
    htc,
    ignored,
    mask2former,
    mask_head,
    tta,
)
from projects.openimages.mm.models.federated import heads, losses  # noqa: F401
