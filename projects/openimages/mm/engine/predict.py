"""Inference for people: images in, overlays and a JSON of detections out.

In: a config, a checkpoint with its class names, and files, folders or globs. Out: one overlay an
image, and ``detections.json`` with a line an image, written as the images finish.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image, ImageOps

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import atomic_write
from projects.openimages.common.progress import progress
from projects.openimages.mm.engine.checkpoints import (
    load_weights,
    local_file,
    read_checkpoint,
    weights_of,
)
from projects.openimages.mm.engine.config import build_model
from projects.openimages.mm.engine.options import is_a
from projects.openimages.mm.evaluation.predictions import to_instances
from projects.openimages.submissions.formats import score_text
from projects.openimages.visualization.drawing import MOST_DRAWN, Instances, draw_instances

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


def find_images(sources: Iterable[str]) -> list[Path]:
    """The images that files, folders (not their folders) and globs name, each once, in order."""
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            paths = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
        elif path.exists():
            paths = [path]
        else:
            paths = [p for p in map(Path, sorted(glob.glob(source, recursive=True)))
                     if p.suffix.lower() in _SUFFIXES]
        if not paths:
            raise UserError('no images (a file, a folder or a glob)', path=source)
        found.update(dict.fromkeys(paths))
    return list(found)


class Predictor:
    """A detector with the class names that it was trained with.

    Args:
        cfg: a test config; with ``tta_model`` already in place where that is wanted.
        checkpoint: of a training run, which has the class names in its meta.
        device: where to run.

    Attributes:
        names, mids: of the classes, by label; mids are empty where the checkpoint has none.
    """

    def __init__(self, cfg: Config, checkpoint: str | os.PathLike, device: str = 'cpu') -> None:
        checkpoint = local_file(os.fspath(checkpoint))
        stored = read_checkpoint(checkpoint)
        self.names, self.mids = _classes(stored, checkpoint)
        _never_download(cfg)
        model = build_model(cfg)
        load_weights(getattr(model, 'module', model), weights_of(stored), checkpoint)
        self._model = model.to(device).eval()
        self._pipeline = Compose([_load_or_blank(transform) for transform in
                                  cfg.test_dataloader.dataset.pipeline])

    def __call__(self, path: Path) -> Instances:
        """What is found in one image, labels as in ``names``; a UserError if it cannot be read."""
        item = self._pipeline({'img_path': str(path), 'image_id': path.stem, 'img_id': 0,
                               'height': 1, 'width': 1})
        sample = item['data_samples']
        metainfo = (sample[0] if isinstance(sample, list) else sample).metainfo
        if reason := metainfo.get('unreadable'):
            raise UserError(reason, path=path)
        with torch.no_grad():
            [result] = self._model.test_step(pseudo_collate([item]))
        return to_instances(result.pred_instances)


def _classes(stored: dict[str, Any], path: str | os.PathLike) -> tuple[tuple, tuple]:
    meta = stored.get('meta') or {}
    of_data = meta.get('dataset_meta') or {}
    names = of_data.get('classes') or of_data.get('CLASSES') or meta.get('CLASSES')
    if not names:
        raise UserError('no class names in its meta: expected a checkpoint of a training run',
                        path=path)
    return tuple(names), tuple(of_data.get('mids', ()))


def _never_download(cfg: Config) -> None:
    """The checkpoint has all weights: none are to be fetched first."""
    model = cfg.model.get('module') or cfg.model
    if 'backbone' in model:
        model.backbone.init_cfg = None


def _load_or_blank(transform: dict) -> dict:
    """Loading that says what is wrong, and turns people's photos upright as the camera says."""
    if is_a(transform, 'LoadImageFromFile', exactly=True):
        return {**transform, 'type': 'LoadImageOrBlank', 'color_type': 'color'}
    return transform


def predict(predictor: Predictor, images: Sequence[Path], out: Path, *, score_thr: float = 0.3,
            skip_bad: bool = False, max_side: int = 1024) -> Iterator[str]:
    """Write overlays and ``detections.json`` to a folder.

    Args:
        predictor: what to run.
        images: from :func:`find_images`.
        out: made if it is not there.
        score_thr: of the detections to show and to write.
        skip_bad: an unreadable image gets an entry without detections and no overlay.
        max_side: of the overlays, in pixels.

    Yields:
        A line about each image that was skipped.
    """
    overlays = _overlay_names(images, out)
    with atomic_write(out / 'detections.json') as file:
        file.write('[')
        for number, path in enumerate(progress(images, desc='predict', unit='img')):
            try:
                found = predictor(path).at_least(score_thr)
            except UserError as error:
                if not skip_bad:
                    raise UserError(f'{error}; --skip-bad leaves such images out') from None
                yield f'{error}: skipped'
                entry = {'file': str(path), 'unreadable': True, 'detections': []}
            else:
                entry = _draw_and_describe(predictor, path, found, overlays[path], max_side)
            file.write(f'{"," if number else ""}\n{json.dumps(entry, ensure_ascii=False)}')
        file.write('\n]\n')


def _overlay_names(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """``NAME.jpg``, numbered where images of several folders have one name."""
    taken: set[str] = set()
    names = {}
    for path in images:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f'{path.stem}_{number}'
        taken.add(name)
        names[path] = out / f'{name}.jpg'
    return names


def _draw_and_describe(predictor: Predictor, path: Path, found: Instances, overlay: Path,
                       max_side: int) -> dict[str, Any]:
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert('RGB')  # as OpenCV reads it
    width, height = upright.size
    more = len(found) - MOST_DRAWN
    picture = draw_instances(upright, found.best(MOST_DRAWN), predictor.names, max_side=max_side,
                             caption=f'and {more} of lower scores' if more > 0 else '')
    with atomic_write(overlay, 'wb') as file:
        picture.save(file, 'JPEG', quality=90)
    return {'file': str(path), 'width': width, 'height': height, 'overlay': overlay.name,
            'detections': [_describe(predictor, found, n) for n in range(len(found.labels))]}


def _describe(predictor: Predictor, found: Instances, n: int) -> dict[str, Any]:
    label = int(found.labels[n])
    entry: dict[str, Any] = {'class': predictor.names[label]}
    if predictor.mids:
        entry['mid'] = predictor.mids[label]
    entry['score'] = float(score_text(found.scores[n]))
    x1, y1, x2, y2 = (round(float(side), 2) for side in found.boxes[n])
    entry['box'] = [x1, y1, x2, y2]
    if found.masks is not None:
        mask = found.masks[n]
        entry['mask'] = {'size': list(mask['size']), 'counts': mask['counts'].decode('ascii')}
    return entry
