"""MMDetection's runtime, by iterations, with this project's parts and its metric."""

_base_ = 'mmdet::_base_/default_runtime.py'

custom_imports = dict(imports=['projects.openimages.mm'])
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),  # there is one epoch: every mAP would be at its start
    checkpoint=dict(
        by_epoch=False, interval=5000, max_keep_ckpts=3, save_best='openimages/mAP',
        rule='greater'),
    class_scores=dict(type='ClassScoresHook'),
    ignored_instances=dict(type='IgnoredInstancesHook'),
    # Missing and cut images are named and left out; more than a thousandth of them ends the run.
    unreadable_images=dict(type='UnreadableImagesHook', max_share=0.001))
log_processor = dict(by_epoch=False)
