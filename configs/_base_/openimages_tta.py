"""Test-time augmentation for ``tools/test.py --tta``: three scales, each plain and flipped."""

tta_model = dict(type='MaskAveragingTTA')
tta_pipeline = [
    dict(type='LoadImageFromFile', color_type='color_ignore_orientation'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=scale, keep_ratio=True)
         for scale in ((1333, 640), (1333, 800), (1600, 960))],
        [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)],
        [dict(type='PackInstances')]])]
