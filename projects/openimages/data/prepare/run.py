"""Official files to a prepared split: index, COCO JSON, TF ground truth, report.

The order of work: the CSVs are read, checked and joined; image sizes and masks are read in shards
by worker processes, each leaving a file; those become the index; everything else is written from
the index. All of it happens in a hidden folder, and the finished files take their places at the
end. A run that is killed goes on from its shards, as long as the inputs are the same. Two runs on
one split do not mix: the second is refused.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from projects.openimages.common.errors import UserError
from projects.openimages.common.files import exclusive, open_regular
from projects.openimages.common.parallel import run_in_order
from projects.openimages.common.progress import progress
from projects.openimages.data.export.coco import write_coco
from projects.openimages.data.export.tf_ground_truth import (
    BOXES,
    LABEL_MAP,
    LABELS,
    SEGMENTATIONS,
    write_tf_ground_truth,
)
from projects.openimages.data.folders import check_name, file_names
from projects.openimages.data.index import PreparedIndex, write_index
from projects.openimages.data.layout import SplitFiles, find_split
from projects.openimages.data.mask_files.archives import MaskReader, find_masks
from projects.openimages.data.mask_files.polygons import MAX_TOLERANCE
from projects.openimages.data.official.annotations import (
    Annotations,
    annotations_without_rows,
    read_annotations,
)
from projects.openimages.data.official.class_choice import ClassChoice, choose_classes
from projects.openimages.data.official.image_sizes import look_up_sizes, read_sizes_csv
from projects.openimages.data.official.known_images import note_known_images
from projects.openimages.data.official.releases import CHALLENGE_TEST
from projects.openimages.data.prepare.fingerprint import (
    STATE_FILE,
    describe_inputs,
    inputs_key,
    is_prepared,
    record_prepared,
)
from projects.openimages.data.prepare.gathering import Gathered, gather
from projects.openimages.data.prepare.report import build_report, write_report
from projects.openimages.data.prepare.shards import make_shards, process_shard, shard_bounds
from projects.openimages.data.problems import BAD_KINDS, Problem, ProblemLog
from projects.openimages.labels import LabelSpace

INDEX, COCO = 'index.arrow', 'coco.json'
REPORTS = ('report.json', 'report.txt')
_PARTS = '.parts'
_TF = (BOXES, LABELS, SEGMENTATIONS, LABEL_MAP)


@dataclass(frozen=True)
class PrepareOptions:
    """How to prepare.

    Attributes:
        workers: processes; they change the time, never the output.
        skip_bad: leave bad input out and list it in the report, instead of stopping at it.
        skip: the same for some kinds of bad input only.
        sizes: a CSV of image sizes to use instead of the images' headers, where it has them; the
            images need not be there then.
        polygon_tolerance: write ``coco.json`` with polygons this close in pixels; None for RLE.
        coco: write ``coco.json`` at all.
        release: take the files of this one of ``RELEASES``; None for the one that is there.
        choice: classes to keep; None for all.
        out: the folder for prepared splits; None for ``prepared`` in the data root.
        missing: files that are not the split's and were not found, and what that changes.

    Raises:
        UserError: a tolerance that is none.
    """

    workers: int = 1
    skip_bad: bool = False
    skip: frozenset[str] = frozenset()
    sizes: Path | None = None
    polygon_tolerance: float | None = None
    coco: bool = True
    release: str | None = None
    choice: ClassChoice | None = None
    out: Path | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tolerance = self.polygon_tolerance
        if tolerance is not None and not 0 <= tolerance <= MAX_TOLERANCE:
            raise UserError(f'polygon tolerance {tolerance:g}, expected 0 to {MAX_TOLERANCE:g} '
                            'pixels')

    def state(self) -> dict:
        """What of it changes the outputs, as JSON."""
        return {'skip': sorted(self.skipped), 'polygon_tolerance': self.polygon_tolerance,
                'coco': self.coco, 'classes': self.choice and self.choice.space.mids}

    @property
    def skipped(self) -> frozenset[str]:
        """The kinds of bad input that do not stop the work."""
        return frozenset(BAD_KINDS) if self.skip_bad else self.skip


@dataclass(frozen=True)
class Prepared:
    """A finished split: its folder, and whether it was there already."""

    folder: Path
    reused: bool


def prepare_split(root: str | os.PathLike, split: str, label_space: LabelSpace,
                  class_files: Sequence[Path], options: PrepareOptions) -> Prepared:
    """Prepare one split into ``<root>/prepared/<split>``, or where ``options.out`` says.

    Args:
        root: the data root.
        split: ``train``, ``validation`` or ``test``.
        label_space: its classes.
        class_files: the files it was read from.
        options: see there.

    Raises:
        UserError: anything that is wrong with the input and not to be skipped, or another run is
            preparing the split.
    """
    check_name(os.fspath(root))
    files = find_split(root, split, options.release)
    folder = (options.out or Path(root) / 'prepared') / split
    others = [*class_files, *([options.sizes] if options.sizes else [])]
    for path in others:
        try:
            open_regular(path).close()
        except FileNotFoundError:
            raise UserError('no such file', path=path) from None
    state = describe_inputs(files, others, options.state())
    names = [INDEX, *([COCO] if options.coco else ()), *(_TF if files.boxes else ()), *REPORTS]
    if is_prepared(folder, state, names) and not (folder / _PARTS).exists():
        return Prepared(folder, reused=True)
    with exclusive(folder, 'preparing this split'):
        reused = is_prepared(folder, state, names)  # by a run that has just ended or was killed
        if not reused:
            parts = _parts_folder(folder, inputs_key(
                {**state, 'options': state['options']['classes']}))
            _prepare(files, label_space, options, parts)
            _publish(parts, folder, names)
            record_prepared(folder, state, names)
        shutil.rmtree(folder / _PARTS, ignore_errors=True)
    return Prepared(folder, reused)


def _parts_folder(folder: Path, key: str) -> Path:
    """The folder for unfinished work; what other inputs left there is removed."""
    parts = folder / _PARTS / key
    if (folder / _PARTS).is_dir():
        for other in (folder / _PARTS).iterdir():
            if other != parts:
                shutil.rmtree(other)
    parts.mkdir(parents=True, exist_ok=True)
    for left_over in parts.glob('.*.part'):  # of a run that was killed while writing
        left_over.unlink()
    return parts


def _prepare(files: SplitFiles, label_space: LabelSpace, options: PrepareOptions,
             parts: Path) -> None:
    """Write all outputs into the folder for unfinished work."""
    log = ProblemLog(options.skipped)
    for name, message in {**options.missing, **files.missing}.items():
        log.add(Problem('missing_file', f'{name}: {message}'))
    print(f'{files.split}: reading the CSVs and the archives\' directories', file=sys.stderr)
    on_disk = _images_on_disk(files.image_folders, needed=options.sizes is None)
    annotations, sizes = _read_rows(files, label_space, on_disk, options, log)
    note_known_images(files, annotations.image_ids, log)
    gathered = _read_masks(files, annotations, sizes, options, parts, log)
    del annotations
    write_index(parts / INDEX, gathered.columns, split=files.split,
                label_space=options.choice.space if options.choice else label_space)
    quality = None
    if options.coco:
        quality = write_coco(parts / COCO, parts / INDEX, _coco_names(files, on_disk),
                             polygon_tolerance=options.polygon_tolerance, workers=options.workers)
    if files.boxes:
        write_tf_ground_truth(parts, parts / INDEX, workers=options.workers)
    report = build_report(PreparedIndex.open(parts / INDEX), gathered, log, files,
                          all_classes=options.choice is None,
                          polygons=asdict(quality) if quality else None)
    write_report(parts, report)


def _coco_names(files: SplitFiles, on_disk: Mapping[str, Path] | None) -> Callable[[str], str]:
    """``file_name`` by image id: below the images' folder or, of several, what they share."""
    if on_disk is None or len(files.image_folders) == 1:
        return '{}.jpg'.format
    shared = Path(os.path.commonpath(files.image_folders))
    return lambda image_id: (on_disk[image_id].relative_to(shared) / f'{image_id}.jpg').as_posix()


def _read_rows(files: SplitFiles, label_space: LabelSpace, on_disk: Mapping[str, Path] | None,
               options: PrepareOptions, log: ProblemLog) -> tuple[Annotations, np.ndarray]:
    """The split's rows, and (I, 2) int32 image sizes where a CSV says them, zeros otherwise."""
    known = read_sizes_csv(options.sizes, log) if options.sizes else None
    if files.boxes is not None:
        annotations = read_annotations(files, label_space, log)
        _note_extra_images(files, annotations, on_disk or {}, log)
        if options.choice:
            annotations = choose_classes(annotations, options.choice)
    elif on_disk is not None:
        annotations = annotations_without_rows(list(on_disk))
    else:
        assert known is not None  # or the folder would have been needed
        annotations = annotations_without_rows(known[0].unique().to_pylist())
    sizes = np.zeros((len(annotations.image_ids), 2), np.int32)
    if known:
        sizes = look_up_sizes(annotations.image_ids, *known)
        if on_disk is not None:  # an image that is listed must still be there
            sizes[[image_id not in on_disk for image_id in annotations.image_ids]] = 0
    return annotations, sizes


def _images_on_disk(folders: Sequence[Path], *, needed: bool) -> dict[str, Path] | None:
    """The folder of every image; None without any folder, where that is allowed."""
    if not folders[0].is_dir():
        if needed:
            other = folders[0].with_name(CHALLENGE_TEST)
            hint = f'; {other.name} is there, and is a split' if other.is_dir() else ''
            raise UserError(f'no such folder (the images); --sizes prepares without them{hint}',
                            path=folders[0])
        return None
    found = {name.removesuffix('.jpg'): folder for folder in reversed(folders)
             for name in file_names(folder, '.jpg')}
    if needed and not found:
        raise UserError('no .jpg image in this folder', path=folders[0])
    return found


def _note_extra_images(files: SplitFiles, annotations: Annotations, on_disk: Mapping[str, Path],
                       log: ProblemLog) -> None:
    reason = ('no CSV mentions it' if files.is_challenge
              else 'no box and no mask of it is of a class in use')
    extra = sorted(on_disk.keys() - set(annotations.image_ids))
    log.notes('extra_image', len(extra), (
        Problem('extra_image', reason, f'{on_disk[image_id] / image_id}.jpg', None,
                image_id) for image_id in extra))


def _read_masks(files: SplitFiles, annotations: Annotations, sizes: np.ndarray,
                options: PrepareOptions, parts: Path, log: ProblemLog) -> Gathered:
    names = annotations.mask_names
    names = pa.chunked_array([names]) if isinstance(names, pa.Array) else names
    places = find_masks(files, names, log)
    shards = make_shards(annotations, places, sizes,
                         files.image_folders if files.image_folders[0].is_dir() else (), parts)
    total = int((annotations.mask_rows >= 0).sum()) or len(annotations.image_ids)
    unit = 'mask' if len(annotations.mask_names) else 'image'
    with (progress(total=total, desc=files.split, unit=unit) as bar,
          closing(MaskReader(files)) as reader):
        results = run_in_order(process_shard, shards, options.workers,
                               len(shard_bounds(annotations)), shared=reader)
        return gather(annotations, _with_progress(results, annotations, bar), files,
                      parts / 'masks.bin', log)


def _with_progress(results: Iterator[Path], annotations: Annotations, bar: tqdm) -> Iterator[Path]:
    has_mask = annotations.mask_rows >= 0
    for (start, stop), path in zip(shard_bounds(annotations), results, strict=True):
        first, last = annotations.instance_offsets[[start, stop]]
        bar.update(int(has_mask[first:last].sum()) if len(annotations.mask_names)
                   else stop - start)
        yield path


def _publish(parts: Path, folder: Path, names: list[str]) -> None:
    """Put the finished files in their places; until all are there the split is not finished."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    for name in {COCO, *_TF}.difference(names):  # of a run with other options
        (folder / name).unlink(missing_ok=True)
    for name in names:
        os.replace(parts / name, folder / name)
