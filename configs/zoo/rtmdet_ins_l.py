"""RTMDet-Ins-l with its own optimiser; MMDetection's learning rate is for 256 images a step."""

_base_ = ['mmdet::rtmdet/rtmdet-ins_l_8xb32-300e_coco.py', '../_base_/openimages.py']

from projects.openimages.mm.models.adapting import for_open_images

for_open_images(_base_, keep=('optim_wrapper',))

optim_wrapper = dict(optimizer=dict(lr=0.004 / 16))
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002,
                     update_buffers=True, priority=49)]
