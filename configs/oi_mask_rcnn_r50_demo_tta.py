"""The demo with test-time augmentation: two scales, each plain and flipped."""

_base_ = './oi_mask_rcnn_r50_demo.py'

tta_model = dict(type='MaskAveragingTTA')
tta_pipeline = [
    _base_.load_image,
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((256, 192), (320, 240))],
        [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
        [dict(type='PackInstances')]])]
