"""The MMDetection parts. Importing this package fills MMDetection's registries.

Configs do so with ``custom_imports = dict(imports=['projects.openimages.mm'])``.
"""

from projects.openimages.mm import (  # noqa: F401
    assigners,
    challenge_metric,
    checkpoints,
    dataset,
    loading,
    loops,
    mask_head,
    outputs,
    samplers,
    submission_dump,
    transforms,
    tta,
)
