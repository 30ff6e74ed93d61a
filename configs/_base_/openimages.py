"""Data, metric, schedule and runtime under one name.

For a config that begins with one of MMDetection's, which has all of these for COCO: MMEngine lets
no two bases set the same key, and the only key here is ``openimages``.
:func:`~projects.openimages.mm.models.adapting.for_open_images` puts its values into place.
"""

_base_ = [
    './datasets/openimages_instance.py',
    './schedules/openimages_270k.py',
    './openimages_runtime.py']

openimages = dict(_base_)
_base_.clear()
