"""Mask2Former R50 with its own optimiser, for 16 images a step."""

_base_ = ['mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images

for_open_images(_base_, keep=('optim_wrapper',))
