"""The main config with Seesaw loss and a normed classifier (https://arxiv.org/abs/2008.10032)."""

_base_ = '../oi_mask_rcnn_r50.py'

model = dict(
    roi_head=dict(bbox_head=dict(
        cls_predictor_cfg=dict(type='NormedLinear', temperature=20),
        loss_cls=dict(_delete_=True, type='SeesawLoss', num_classes=_base_.num_classes))),
    test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))
