"""What is known of single images beforehand: rotated originals, and images others leave out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from projects.openimages.common.csv_files import read_header
from projects.openimages.common.csv_pieces import read_matching
from projects.openimages.data.layout import SplitFiles
from projects.openimages.data.official.releases import SUSPECT_IMAGES
from projects.openimages.data.problems import Problem, ProblemLog

_NOT_TURNED = ('', '0', '0.0')


def note_known_images(files: SplitFiles, image_ids: Sequence[str], log: ProblemLog) -> None:
    """Put notes about some of a split's images into the log."""
    if files.images and 'Rotation' in read_header(files.images):
        _note_rotations(files.images, image_ids, log)
    found = sorted(SUSPECT_IMAGES.intersection(image_ids))
    log.notes('suspect_image', len(found), (
        Problem('suspect_image', 'public solutions leave it out', image_id=image_id)
        for image_id in found))


def _note_rotations(path: Path, image_ids: Sequence[str], log: ProblemLog) -> None:
    """Note the turned originals; rows that cannot be read say nothing, and are no harm."""
    wanted, upright = pa.array(image_ids, pa.large_string()), pa.array(_NOT_TURNED,
                                                                       pa.large_string())
    rows = read_matching(
        path, {'ImageID': pa.large_string(), 'Rotation': pa.large_string()},
        lambda table: pc.and_(pc.is_in(table['ImageID'], value_set=wanted),
                              pc.invert(pc.is_in(table['Rotation'], value_set=upright))),
        lambda row, message: None)
    columns = zip(rows['ImageID'].to_pylist(), rows['Rotation'].to_pylist(), rows.lines.tolist(),
                  strict=True)
    log.notes('rotated_original', len(rows), (
        Problem('rotated_original', f'its original is turned by {rotation} degrees', str(path),
                row, image_id) for image_id, rotation, row in columns))
