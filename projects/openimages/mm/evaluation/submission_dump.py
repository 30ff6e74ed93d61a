"""Writing a submission while the test runs: streamed, in order, and safe against kills.

:func:`add_submission_dump` adds the parts to a config before the runner is built:

- :class:`SubmissionDumpHook` appends each batch's rows to this process's part file and, when all
  processes are through, puts the parts together (``submissions/dump``);
- :class:`UnfinishedSampler` leaves out the batches that a killed run had finished;
- the challenge metric gets the same threshold, cap and expansion: it scores what is written.

Memory does not grow with the number of images.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS, HOOKS
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, get_dist_info
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from torch.utils.data import Sampler

from projects.openimages.common.errors import UserError
from projects.openimages.masks import encode_text, rle_from_mask
from projects.openimages.mm.engine.config import innermost, needs_expansion, score_as_submitted
from projects.openimages.mm.engine.mmengine_internals import leave_out_metrics
from projects.openimages.mm.engine.options import is_a
from projects.openimages.mm.evaluation.predictions import classes_of_labels, select_predictions
from projects.openimages.mm.structures.predicted import instances_of
from projects.openimages.mm.structures.samples import each_sample
from projects.openimages.submissions.dump.finish import finish_submission, parse_size
from projects.openimages.submissions.dump.parts import (
    FinishedImages,
    PartWriter,
    begin_parts,
    parts_folder,
)
from projects.openimages.submissions.formats import (
    FORMATS,
    Detection,
    ImageDetections,
    score_text,
)


def add_submission_dump(cfg: Config, out: str | os.PathLike, submission_format: str = 'kaggle', *,
                        score_thr: float = 0.0, max_per_img: int | None = None,
                        expand_hierarchy: bool = True, max_size: int | str | None = None,
                        resume: bool = False, skip_bad: bool = False) -> None:
    """Make the test of ``cfg`` write a submission.

    Args:
        cfg: changed in place; the runner must be built from it afterwards.
        out: the CSV.
        submission_format: ``'kaggle'`` or ``'tf'``.
        score_thr: hand in detections with at least this score.
        max_per_img: hand in at most so many of the model's detections an image, the best ones;
            their repetition for ancestor classes does not count.
        expand_hierarchy: hand in each detection also for its ancestor classes, where the model
            does not do so itself (:func:`needs_expansion`).
        max_size: bytes, or text such as ``'500MB'``; the best-scoring detections over the whole
            set that fit are kept.
        resume: go on with the images that an interrupted run left.
        skip_bad: an unreadable image gets a row without detections; otherwise it ends the test.
    """
    if submission_format not in FORMATS:
        raise UserError(f'submission format {submission_format!r}, expected one of '
                        f'{", ".join(FORMATS)}')
    if not 0 <= score_thr <= 1:
        raise UserError(f'score threshold {score_thr}, expected 0 to 1')
    if max_per_img is not None and max_per_img < 1:
        raise UserError(f'{max_per_img} detections an image, expected at least 1')
    if isinstance(max_size, str):
        max_size = parse_size(max_size)
    selection = {'score_thr': score_thr, 'max_per_img': max_per_img,
                 'expand_hierarchy': needs_expansion(cfg, expand_hierarchy)}
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), ConfigDict(
        type='SubmissionDumpHook', out=os.fspath(out), submission_format=submission_format,
        max_size=max_size, resume=resume, skip_bad=skip_bad, **selection)]
    cfg.test_dataloader.sampler = ConfigDict(type='UnfinishedSampler')
    _name_unreadable_images(cfg)
    score_as_submitted(cfg, **selection)


def _name_unreadable_images(cfg: Config) -> None:
    pipelines = [innermost(cfg.test_dataloader.dataset)['pipeline'], cfg.get('tta_pipeline', [])]
    for pipeline in pipelines:
        for transform in pipeline:
            if is_a(transform, 'LoadImageFromFile', exactly=True):
                transform['type'] = 'LoadImageOrBlank'


@DATA_SAMPLERS.register_module()
class UnfinishedSampler(Sampler):
    """The test list in order, dealt out to the processes in turn, without what is finished.

    Whole batches are left out, and a batch that is unfinished is taken as a whole: batches, whose
    images are padded to a common size, are then the same as in a run without interruption, and so
    are their detections. As in ``DefaultSampler`` the last images may be repeated so that all
    processes have the same number.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        self.rank, world_size = get_dist_info()
        count = math.ceil(len(dataset) / world_size) * world_size
        self.indices = [index % len(dataset) for index in range(self.rank, count, world_size)]

    def skip_finished(self, done: np.ndarray, batch_size: int) -> None:
        """Leave out the batches of which every image is finished; ``done`` is (I,) bool."""
        batches = [self.indices[start:start + batch_size]
                   for start in range(0, len(self.indices), batch_size)]
        self.indices = [index for batch in batches if not done[batch].all() for index in batch]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


_BATCHES_AT_WORK = 8  # at most, so that masks do not gather where writing is the slower part


@HOOKS.register_module()
class SubmissionDumpHook(Hook):
    """Writes the submission; the arguments are those of :func:`add_submission_dump`.

    Rows are made and written by a thread beside the model, which waits for its device most of the
    time, in the order of the batches.
    """

    priority = 'LOW'
    _locks: ClassVar[dict[Path, ExitStack]] = {}

    def __init__(self, out: str, submission_format: str, score_thr: float,
                 max_per_img: int | None, expand_hierarchy: bool, max_size: int | None,
                 resume: bool, skip_bad: bool) -> None:
        self.out = Path(out)
        self.submission_format = submission_format
        self.selection = {'score_thr': score_thr, 'max_per_img': max_per_img,
                          'expand_hierarchy': expand_hierarchy}
        self.max_size = max_size
        self.resume = resume
        self.skip_bad = skip_bad

    def before_test(self, runner) -> None:
        """Open this process's part file and find out what is left to do.

        Rank 0 holds the lock of the parts until the submission is there.
        """
        loader = runner.test_loop.dataloader
        rank, world_size = get_dist_info()
        self._label_space = loader.dataset.label_space
        self._class_of_label = classes_of_labels(self._label_space, loader.dataset.metainfo)
        folder = parts_folder(self.out)
        settings = {'images': len(loader.dataset), 'processes': world_size,
                    'batch size': loader.batch_size, 'model': _model_identity(runner),
                    'threads (OMP_NUM_THREADS)': torch.get_num_threads(),  # change a sum's last bit
                    **self.selection}
        if rank == 0:
            if folder in self._locks:  # of a run that failed in this process, as in a notebook
                self._locks.pop(folder).close()
            self._locks[folder] = begin_parts(folder, settings, resume=self.resume)
            done = FinishedImages(folder, len(loader.dataset)).done
        barrier()
        if rank != 0:
            done = FinishedImages(folder, len(loader.dataset)).done
        barrier()
        if done.any():
            runner.logger.info(f'{self.out}: {done.sum()} of {len(done)} images were finished '
                               'before; their scores are not known here, so the metric is left '
                               'out: tools/evaluate.py scores the CSV')
            leave_out_metrics(runner)
        loader.sampler.skip_finished(done, loader.batch_size)
        self._indices = iter(list(loader.sampler))
        self._writer = PartWriter(folder, rank, settings)
        self._thread = ThreadPoolExecutor(1, 'submission')
        self._at_work: deque[Future] = deque()

    def before_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None) -> None:
        """Say which images cannot be read."""
        for sample in each_sample((data_batch or {}).get('data_samples', ())):
            if reason := sample.metainfo.get('unreadable'):
                if not self.skip_bad:
                    raise UserError(f'{reason}; --skip-bad gives such images an empty row',
                                    path=sample.img_path)
                runner.logger.warning(f'{sample.img_path}: {reason}: a row without detections')

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict | None = None,
                        outputs: Sequence | None = None) -> None:
        """Have the batch's rows appended."""
        self._at_work.append(self._thread.submit(self._write, outputs or ()))
        if len(self._at_work) > _BATCHES_AT_WORK:
            self._at_work.popleft().result()  # raises what went wrong in the thread

    def _write(self, samples: Sequence) -> None:
        self._writer.write([(next(self._indices), self._row(sample)) for sample in samples])

    def after_test(self, runner) -> None:
        """Put the parts together, in the order of the test list."""
        while self._at_work:
            self._at_work.popleft().result()
        self._thread.shutdown()
        self._writer.close()
        barrier()
        if get_dist_info()[0] == 0:
            finished = FinishedImages(parts_folder(self.out),
                                      len(runner.test_loop.dataloader.dataset))
            summary = finish_submission(finished, self.out, self.submission_format, self.max_size)
            finished.remove()
            self._locks.pop(parts_folder(self.out)).close()
            runner.logger.info(f'{self.out}: {summary}')
        barrier()

    def _row(self, sample: Any) -> ImageDetections:
        height, width = sample.ori_shape[:2]
        detections: list[Detection] = []
        if not sample.metainfo.get('unreadable'):
            detections = self._detections(instances_of(sample), height * width)
        return ImageDetections(sample.image_id, width, height, detections)

    def _detections(self, predictions: InstanceData, pixels: int) -> list[Detection]:
        chosen, masks = select_predictions(predictions, self._class_of_label, self._label_space,
                                           **self.selection)
        counts = [mask['counts'] for mask in masks]
        empty = _empty_counts(pixels)
        texts = {row: encode_text(counts[row]) for row in set(chosen.rows.tolist())
                 if counts[row] != empty}  # the evaluator drops a detection with an empty mask
        return [Detection(self._label_space.mids[class_id], score_text(score), texts[row])
                for row, class_id, score in zip(chosen.rows.tolist(), chosen.class_ids.tolist(),
                                                chosen.scores, strict=True) if row in texts]


def _empty_counts(pixels: int) -> bytes:
    return rle_from_mask(np.zeros((pixels, 1), bool))['counts']


def _model_identity(runner) -> str:
    """The checkpoint's name, size and time: rows of two models must not stand in one file."""
    path = runner.cfg.get('load_from')
    if path is None or not Path(path).is_file():
        return str(path)
    status = Path(path).stat()
    return f'{Path(path).name} ({status.st_size} bytes, {status.st_mtime_ns})'
