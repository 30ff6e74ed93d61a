"""Mask R-CNN with ConvNeXt-T and its own optimiser; needs the package mmpretrain."""

_base_ = [
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images, need_package

need_package('mmpretrain', 'ConvNeXt')
for_open_images(_base_, keep=('optim_wrapper',))

custom_imports = dict(imports=['projects.openimages.mm', 'mmpretrain.models'])
