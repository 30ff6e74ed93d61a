"""The main config with test-time augmentation.

    python tools/test.py configs/oi_mask_rcnn_r50_tta.py CHECKPOINT --tta
"""

_base_ = ['./oi_mask_rcnn_r50.py', './_base_/openimages_tta.py']
