"""Mask R-CNN with Swin-T and its own optimiser, for 16 images a step."""

_base_ = ['mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images

for_open_images(_base_, keep=('optim_wrapper',))
