"""Mask R-CNN R50-FPN that learns from what people verified; docs/recipe.md has the method.

Against the main config: the softmax's targets and denominators follow what was verified and the
hierarchy, and its logits are angles; boxes and masks are the same for all classes. Scores are
weighed by the proposals' own; a class scores for its descendants too, so nothing is expanded
afterwards.
"""

_base_ = './oi_mask_rcnn_r50.py'

custom_hooks = [dict(type='TrainingClassesHook')]
model = dict(
    roi_head=dict(
        type='FederatedRoIHead',
        bbox_head=dict(
            type='FederatedBBoxHead', reg_class_agnostic=True,
            cls_predictor_cfg=dict(type='NormedLinear', temperature=20),
            loss_cls=dict(
                _delete_=True, type='FederatedSoftmaxLoss', num_classes=_base_.num_classes)),
        mask_head=dict(class_agnostic=True)),
    train_cfg=dict(rcnn=dict(assigner=dict(ignore_group_of=False))),
    test_cfg=dict(rcnn=dict(score_thr=1e-3, max_per_img=400)))

val_evaluator = dict(expand_hierarchy=False)
test_evaluator = val_evaluator
