"""Cascade Mask R-CNN with ResNeXt-101 32x4d."""

_base_ = [
    'mmdet::cascade_rcnn/cascade-mask-rcnn_x101-32x4d_fpn_1x_coco.py', '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images

for_open_images(_base_)
