"""The main config shrunk to minutes on two CPU cores, from scratch, for ``make demo``."""

_base_ = './oi_mask_rcnn_r50.py'

data_root = 'work_dirs/demo/data/'
load_from = None

norm = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(depth=18, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=96, norm_cfg=norm),
    rpn_head=dict(in_channels=96, feat_channels=96, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=96),
        bbox_head=dict(in_channels=96, fc_out_channels=384, reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=96),
        mask_head=dict(num_convs=2, in_channels=96, conv_out_channels=96)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=300),
        rcnn=dict(sampler=dict(num=96))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)))

train_pipeline = [
    _base_.load_image,
    dict(type='LoadRleAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(256, 192), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInstances')]
test_pipeline = [
    _base_.load_image,
    dict(type='Resize', scale=(256, 192), keep_ratio=True),
    dict(type='PackInstances')]
train_dataloader = dict(
    batch_size=4, num_workers=1,
    dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=1,
    dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(index=data_root + 'prepared/validation/index.arrow')
test_evaluator = val_evaluator

train_cfg = dict(max_iters=300, val_interval=300)
auto_scale_lr = dict(base_batch_size=4)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=40, end=300, T_max=260, eta_min=1e-6)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=100))
log_processor = dict(window_size=20)
randomness = dict(seed=2019)
