"""Hybrid Task Cascade R50, without its semantic branch: Open Images has no stuff."""

_base_ = ['mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py', '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images

for_open_images(_base_)
