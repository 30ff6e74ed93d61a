"""The main config with Equalization Loss v2 (https://arxiv.org/abs/2012.08548)."""

_base_ = '../oi_mask_rcnn_r50.py'

model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=dict(
        _delete_=True, type='SigmoidEQLV2Loss', num_classes=_base_.num_classes))),
    test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))
