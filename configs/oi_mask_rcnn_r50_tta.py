"""The main config with test-time augmentation: three scales, each plain and flipped.

    python tools/test.py configs/oi_mask_rcnn_r50_tta.py CHECKPOINT --tta
"""

_base_ = './oi_mask_rcnn_r50.py'

tta_model = dict(type='MaskAveragingTTA')
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True)
         for scale in ((1333, 640), (1333, 800), (1600, 960))],
        [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
        [dict(type='PackInstances')]])]
