"""The recipe published in 2019: batch 4, learning rate 0.01, 1.8M iterations, plain sampling.

https://github.com/dfan/open-images-segmentation-2019 states 0.1496 public AP for it (0.0941 after
1.3M iterations), with maskrcnn-benchmark. What differs from the main config is below; batch 4 is
one GPU of four images or four GPUs of one (``--cfg-options train_dataloader.batch_size=1``).
"""

_base_ = './oi_mask_rcnn_r50.py'

model = dict(train_cfg=dict(rpn_proposal=dict(max_per_img=4000)))
train_dataloader = dict(batch_size=4, sampler=dict(type='InfiniteSampler'))
val_dataloader = dict(batch_size=1)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=4)
train_cfg = dict(max_iters=1_800_000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[1_200_000, 1_600_000], gamma=0.1)]
