"""Mask R-CNN R50-FPN on Open Images: the front door.

Sixteen images an iteration (eight GPUs of two), from COCO weights, classes sampled evenly,
validated by the challenge's metric. The data's place and the class count are one option each:

    --cfg-options data_root=/data/openimages/ num_classes=350
"""

_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['projects.openimages.mm'])

data_root = 'data/openimages/'
num_classes = 300  # and background: the classifier has num_classes + 1 outputs
# COCO weights without the class-specific layers, made by tools/trim_checkpoint.py.
load_from = 'checkpoints/mask_rcnn_r50_fpn_coco_trimmed.pth'

# A box without a mask and the inside of a group-of box are not background.
assigner = dict(type='IgnoreAwareAssigner', ignore_thr=0.5)
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=num_classes),
                  mask_head=dict(type='BoxMaskHead', num_classes=num_classes)),
    train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)),
    test_cfg=dict(rcnn=dict(score_thr=0.01)))  # low scores count in average precision

# The annotations are those of the stored pixels, whatever the EXIF header says of the camera.
load_image = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
train_pipeline = [
    load_image,
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInstances')]
# The metric reads the ground truth from the index, so none is loaded with the images.
test_pipeline = [
    load_image,
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackInstances')]

train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteClassAwareSampler'),
    batch_sampler=dict(type='ResumableAspectRatioBatchSampler'),
    dataset=dict(
        _delete_=True, type='OpenImagesInstanceDataset', data_root=data_root,
        ann_file='prepared/train/index.arrow', data_prefix=dict(img='images/train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(
    _delete_=True, type='OpenImagesInstanceDataset', data_root=data_root,
    ann_file='prepared/validation/index.arrow', data_prefix=dict(img='images/validation/'),
    test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='OpenImagesChallengeMetric',
    index=data_root + 'prepared/validation/index.arrow')
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type='ResumableTrainLoop', max_iters=270_000, val_interval=30_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[210_000, 250_000], gamma=0.1)]
default_hooks = dict(checkpoint=dict(
    by_epoch=False, interval=5000, max_keep_ckpts=3, save_best='openimages/mAP', rule='greater'))
log_processor = dict(by_epoch=False)
