"""Pictures of a test: each image's ground truth beside the model's predictions.

MMDetection's own hook takes the ground truth from the data samples and masks as pixels; here it
comes from the index, and masks may be RLEs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from PIL import Image

from projects.openimages.common.files import atomic_write
from projects.openimages.mm.evaluation.predictions import classes_of_labels, to_instances
from projects.openimages.visualization.contact_sheets import record_instances
from projects.openimages.visualization.drawing import draw_comparison, montage

SHEET_NAME = 'contact_sheet.jpg'


@HOOKS.register_module()
class ComparisonPicturesHook(Hook):
    """Draws each test image twice: ground truth from the index, and the predictions.

    Args:
        folder: gets ``<ImageID>.jpg`` for every image and ``contact_sheet.jpg`` with the first
            ``sheet_images`` of them; None writes nothing.
        show: also shows each picture in a window.
        wait_time: seconds a window stays; 0 waits for a key.
        score_thr: predictions below it are not drawn.
        sheet_images: how many images are on the contact sheet.
    """

    def __init__(self, folder: str | None = None, show: bool = False, wait_time: float = 2.,
                 score_thr: float = 0.3, sheet_images: int = 12) -> None:
        self.folder = None if folder is None else Path(folder)
        self.show = show
        self.wait_time = wait_time
        self.score_thr = score_thr
        self.sheet_images = sheet_images

    def before_test(self, runner) -> None:
        """Find the ground truth."""
        dataset = runner.test_loop.dataloader.dataset
        self._index = dataset.index
        self._class_of_label = classes_of_labels(dataset.label_space, dataset.metainfo)
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence | None = None) -> None:
        """Draw one batch; an image that cannot be read has no picture."""
        for sample in outputs or ():
            if sample.metainfo.get('unreadable'):
                continue
            picture = self._draw(sample)
            if self.folder:
                with atomic_write(self.folder / f'{sample.image_id}.jpg', 'wb') as file:
                    picture.save(file, 'JPEG', quality=90)
            if self.show:
                runner.visualizer.show(np.asarray(picture), win_name=sample.image_id,
                                       wait_time=self.wait_time)

    def after_test(self, runner) -> None:
        """Put the first pictures of the split together."""
        barrier()
        if not self.folder or not is_main_process():
            return
        ids = (self._index.image_id(row) for row in range(self._index.num_images))
        paths = [path for path in (self.folder / f'{image_id}.jpg' for image_id in ids)
                 if path.exists()][:self.sheet_images]
        if paths:
            with atomic_write(self.folder / SHEET_NAME, 'wb') as file:
                montage([Image.open(path) for path in paths]).save(file, 'JPEG', quality=88)

    def _draw(self, sample) -> Image.Image:
        truth = None
        if self._index.num_instances:
            truth = record_instances(self._index.image(self._index.find(sample.image_id)))
        predictions = to_instances(sample.pred_instances, self._class_of_label)
        with Image.open(sample.img_path) as image:
            return draw_comparison(image, truth, predictions, self._index.label_space.names,
                                   score_thr=self.score_thr, title=sample.image_id)
