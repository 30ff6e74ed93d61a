"""Mask R-CNN R50-FPN on Open Images, from COCO weights: the main config."""

_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    './_base_/datasets/openimages_instance.py',
    './_base_/schedules/openimages_270k.py',
    './_base_/openimages_runtime.py']

# COCO weights without the class-specific layers, made by tools/trim_checkpoint.py.
load_from = 'checkpoints/mask_rcnn_r50_fpn_coco_trimmed.pth'
model = dict(
    roi_head=dict(bbox_head=dict(num_classes=_base_.num_classes),
                  mask_head=dict(type='BoxMaskHead', num_classes=_base_.num_classes)),
    train_cfg=dict(rpn=dict(assigner=_base_.assigner), rcnn=dict(assigner=_base_.assigner)),
    test_cfg=dict(rcnn=dict(score_thr=0.01)))  # low scores count in average precision
