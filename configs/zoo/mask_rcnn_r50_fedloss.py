"""The main config with CenterNet2's federated loss (https://arxiv.org/abs/2103.07461)."""

_base_ = '../oi_mask_rcnn_r50.py'

custom_hooks = [dict(type='TrainingClassesHook')]
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=dict(
        _delete_=True, type='FedLoss', num_classes=_base_.num_classes))),
    test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))
