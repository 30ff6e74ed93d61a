"""The main config with large scale jitter, which keeps boxes without a mask (docs/masks.md)."""

_base_ = '../oi_mask_rcnn_r50.py'

train_dataloader = dict(dataset=dict(pipeline=[
    _base_.load_image,
    dict(type='LoadRleAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(1024, 1024), recompute_bbox=True,
         allow_negative_crop=True),
    dict(type='RleFilterAnnotations', min_gt_bbox_wh=(1e-2, 1e-2)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInstances')]))
