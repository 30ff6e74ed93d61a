"""Open Images instance segmentation as prepared by tools/prepare_data.py.

The data's place and the class count are one option each, wherever they are used:

    --cfg-options data_root=/data/openimages/ num_classes=350
"""

data_root = 'data/openimages/'
num_classes = 300  # and background: the classifier has num_classes + 1 outputs
# For every stage that a model trains: a box without a mask and the inside of a group-of box are
# not background.
assigner = dict(type='IgnoreAwareAssigner', ignore_thr=0.5)

# The annotations are those of the stored pixels, whatever the EXIF header says of the camera.
load_image = dict(type='LoadImageFromFile', color_type='color_ignore_orientation')
train_pipeline = [
    load_image,
    dict(type='LoadRleAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInstances')]
# The metric reads the ground truth from the index, so none is loaded with the images.
test_pipeline = [
    load_image,
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='PackInstances')]

train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True,
    sampler=dict(type='InfiniteClassAwareSampler'),
    batch_sampler=dict(type='ResumableAspectRatioBatchSampler'),
    dataset=dict(
        type='OpenImagesInstanceDataset', data_root=data_root,
        ann_file='prepared/train/index.arrow', data_prefix=dict(img='images/train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True, drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='OpenImagesInstanceDataset', data_root=data_root,
        ann_file='prepared/validation/index.arrow', data_prefix=dict(img='images/validation/'),
        test_mode=True, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='OpenImagesChallengeMetric', index=data_root + 'prepared/validation/index.arrow')
test_evaluator = val_evaluator
