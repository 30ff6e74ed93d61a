"""Generated evaluations, scored by the official evaluator and by this project.

    python -m tests.evaluation.parity_cases --cases 2000

A :class:`Case` is the text of the evaluator's input files, on images of a few pixels. The strategy
leans to where two implementations part: tied scores and overlaps, overlaps of exactly one half,
empty and missing masks, rows that stand in one ground-truth file only or in both more than once,
group-of instances of both kinds, numbers whose last digit depends on the parser.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import io
import math
import secrets
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

from projects.openimages.common.errors import UserError, exit_on_interrupt, run_command

if __name__ == '__main__':
    exit_on_interrupt()

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as set_seed
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from evaluation.tf_challenge import (
    official,
    read_metrics,
    run_official,
    running_official_code,
)
from projects.openimages.challenge.evaluate import EvaluatorFiles, evaluate_files
from projects.openimages.metric import (
    DROPPED,
    Detections,
    GroundTruth,
    Matches,
    count_positives,
    match_image,
    per_class,
    precision_recall,
    score,
)

BOX_HEAD = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'
MASK_HEAD = 'ImageID,LabelName,ImageWidth,ImageHeight,XMin,XMax,YMin,YMax,IsGroupOf,Mask'
LABEL_HEAD = 'ImageID,LabelName,Confidence'
FOUND_HEAD = 'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask'
FOUND_BOX_HEAD = 'ImageID,LabelName,Score,XMin,XMax,YMin,YMax'
SCORES = ('0', '0.0', '0.25', '0.5', '0.5', '0.75', '1', '1.0', '0.3', '0.30000000000000004',
          '0.29999999999999999', '1e-05', '0.00001', '0.1234567', '0.99999994', '0.9999999')
TOLERANCE = 1e-12


@dataclasses.dataclass(frozen=True)
class Case:
    """The texts of one evaluation's input files; ``segmentations`` None evaluates boxes."""

    label_map: str
    boxes: str
    labels: str
    segmentations: str | None
    predictions: str

    def write(self, folder: Path) -> EvaluatorFiles:
        """Write the files and return their names, the output's included."""
        names = {}
        for field in dataclasses.fields(self):
            text = getattr(self, field.name)
            if text is not None:
                names[field.name] = str(folder / f'{field.name}.csv')
                Path(names[field.name]).write_text(text, encoding='utf-8')
        return EvaluatorFiles(names['boxes'], names['labels'], names['label_map'],
                              names['predictions'], str(folder / 'metrics.csv'),
                              names.get('segmentations'))


# ----------------------------------------------------------------------------------- generation

def mask_text(pixels: np.ndarray) -> str:
    """(H, W) 0/1 as a submission's text, by pycocotools alone."""
    rle = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return base64.b64encode(zlib.compress(rle['counts'])).decode()


@st.composite
def masks(draw, height: int, width: int) -> np.ndarray:
    """A rectangle or any pixels; often empty or half of another."""
    pixels = np.zeros((height, width), bool)
    if draw(st.integers(0, 3)):
        left, right = sorted(draw(st.tuples(*[st.integers(0, width)] * 2)))
        top, bottom = sorted(draw(st.tuples(*[st.integers(0, height)] * 2)))
        pixels[top:bottom, left:right] = True
    else:
        bits = draw(st.integers(0, 2 ** (height * width) - 1))
        flat = [bool(bits >> place & 1) for place in range(height * width)]
        pixels[:] = np.array(flat).reshape(height, width)
    return pixels


@st.composite
def box_texts(draw, pixels: np.ndarray, style: Callable[[float], str]) -> str:
    """The tight box of a mask, or any box on the pixel grid, as four CSV fields."""
    height, width = pixels.shape
    ys, xs = np.nonzero(pixels)
    if len(xs) and draw(st.booleans()):
        edges = (xs.min(), xs.max() + 1, ys.min(), ys.max() + 1)
    else:
        edges = (*sorted(draw(st.tuples(*[st.integers(0, width)] * 2))),
                 *sorted(draw(st.tuples(*[st.integers(0, height)] * 2))))
    scales = (width, width, height, height)
    return ','.join(style(float(edge / scale))
                    for edge, scale in zip(edges, scales, strict=True))


BOX_STYLES = (repr, '{:.6f}'.format, '{:.17f}'.format, '{:.3g}'.format)


@dataclasses.dataclass
class _Rows:
    """Rows of the four files as they are generated."""

    boxes: list[str] = dataclasses.field(default_factory=list)
    labels: list[str] = dataclasses.field(default_factory=list)
    segmentations: list[str] = dataclasses.field(default_factory=list)
    predictions: list[str] = dataclasses.field(default_factory=list)


@st.composite
def cases(draw) -> Case:
    """One evaluation of up to four images."""
    num_classes = draw(st.sampled_from((1, 2, 2, 2, 3, 3, 3, 300)))
    used = draw(st.lists(st.integers(1, num_classes), min_size=1, max_size=3, unique=True))
    gap = draw(st.integers(0, 2))
    names = {number: f'/m/{number}é' if number % 7 == 3 else f'/m/{number}'
             for number in range(1, num_classes + 1)}
    label_map = ''.join(f'item {{ name: "{name}" id: {number + gap} }}\n'
                        for number, name in names.items())
    with_masks = draw(st.integers(0, 4)) > 0
    found_masks = with_masks or draw(st.booleans())
    image_ids = draw(st.permutations(draw(st.sampled_from(
        (('b', 'a', 'B', 'é'), ('10', '9', '8', '100'), ('00a1', '00a0', '1e5', 'x 1'))))))
    rows = _Rows()
    for image_id in image_ids[:draw(st.integers(1, 4))]:
        _add_image(draw, rows, image_id, [names[number] for number in used], found_masks)
    rows.predictions = draw(st.permutations(rows.predictions))
    if not found_masks:
        rows.predictions = [_without_mask(row) for row in rows.predictions]
    return Case(label_map, _csv(BOX_HEAD, rows.boxes), _csv(LABEL_HEAD, rows.labels),
                _csv(MASK_HEAD, rows.segmentations) if with_masks else None,
                _csv(FOUND_HEAD if found_masks else FOUND_BOX_HEAD, rows.predictions))


def _csv(head: str, rows: list[str]) -> str:
    return '\n'.join([head, *rows]) + '\n'


def _add_image(draw, rows: _Rows, image_id: str, names: list[str], found_masks: bool) -> None:
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    pool = [draw(masks(height, width)) for _ in range(draw(st.integers(1, 4)))]
    style = draw(st.sampled_from(BOX_STYLES))
    for _ in range(draw(st.integers(0, 5))):
        pixels, name = draw(st.sampled_from(pool)), draw(st.sampled_from(names))
        key = f'{draw(box_texts(pixels, style))},{draw(st.sampled_from((0, 0, 0, 1)))}'
        text = draw(st.sampled_from((mask_text(pixels),) * 5 + ('',)))
        in_boxes, in_masks = draw(st.sampled_from(
            ((1, 1), (1, 1), (1, 1), (1, 0), (1, 0), (0, 1), (2, 1), (1, 2), (2, 2))))
        rows.boxes += [f'{image_id},{name},{key}'] * in_boxes
        rows.segmentations += [f'{image_id},{name},{width},{height},{key},{text}'] * in_masks
    for name in names:
        sign = draw(st.sampled_from((None, None, 0, 1)))
        if sign is not None:
            rows.labels.append(f'{image_id},{name},{sign}')
    for _ in range(draw(st.integers(0, 6))):
        pixels, name = draw(st.sampled_from(pool)), draw(st.sampled_from(names))
        text = mask_text(pixels) if found_masks else draw(box_texts(pixels, style))
        copies = draw(st.sampled_from((1,) * 9 + (40,)))  # numpy sorts more than 16 otherwise
        rows.predictions += [
            f'{image_id},{width},{height},{name},{draw(st.sampled_from(SCORES))},{text}'
            for _ in range(copies)]


def _without_mask(row: str) -> str:
    """A row of the mask format that holds a box in place of the mask, in the box format."""
    image_id, _, _, name, found_score, box = row.split(',', 5)
    return f'{image_id},{name},{found_score},{box}'


# ----------------------------------------------------------------------------------- comparison

class RefusedError(Exception):
    """One of the evaluators does not accept the input."""


def official_metrics(files: EvaluatorFiles) -> dict[str, float]:
    """What the official script writes; RefusedError if it crashes."""
    try:
        return run_official(files)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise RefusedError(f'{type(error).__name__}: {error}') from error


def compare_files(case: Case) -> None:
    """Both evaluators on the same CSVs: equal keys in equal order, equal values."""
    with tempfile.TemporaryDirectory() as folder:
        files = case.write(Path(folder))
        theirs = official_metrics(files)
        expected = Path(files.output_metrics).read_bytes()
        try:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter('ignore')
                evaluate_files(files, workers=1)
        except UserError as error:  # no image in common: refused here, nothing found there
            if 'none of its' not in str(error) or any(value > 0 for value in theirs.values()):
                raise
            raise RefusedError(str(error)) from error
        ours = read_metrics(files.output_metrics)
        assert list(ours) == list(theirs), 'other keys'
        for name, value in theirs.items():
            assert equal(ours[name], value), f'{name}: {ours[name]!r}, official {value!r}'
        assert Path(files.output_metrics).read_bytes() == expected, 'other bytes'


def compare_in_memory(case: Case, threshold: float = 0.5) -> None:
    """Both evaluators on the same arrays: per-class AP, precision, recall and counts."""
    with_masks = case.segmentations is not None
    names = [(line.split('"')[1], int(line.split('id: ')[1].split()[0]))
             for line in case.label_map.splitlines()]
    label_map = dict(names)
    utils = official('metrics.oid_challenge_evaluation_utils')
    evaluation = official('utils.object_detection_evaluation')
    evaluator = evaluation.OpenImagesChallengeEvaluator(
        [{'id': number, 'name': name} for name, number in names], evaluate_masks=with_masks,
        matching_iou_threshold=threshold)
    parts, positives = [], np.zeros(max(label_map.values()), np.int64)
    for image, (image_id, truth_rows, found_rows) in enumerate(_image_rows(case, utils)):
        truth = utils.build_groundtruth_dictionary(truth_rows, label_map)
        found = utils.build_predictions_dictionary(found_rows, label_map)
        ours, detections = _as_ours(truth, found, with_masks)
        with running_official_code():
            evaluator.add_single_ground_truth_image_info(image_id, truth)
            evaluator.add_single_detected_image_info(image_id, found)
        parts += match_image(ours, detections, (threshold,), image=image)
        positives += count_positives(ours, len(positives))
    with running_official_code():
        evaluator.evaluate()
    _compare_states(evaluator._evaluation, Matches.concatenate(parts), positives)


def _image_rows(case: Case, utils):
    """Per image of the ground truth, its joined rows and its predictions, by the script's steps."""
    boxes, labels, predictions = (pd.read_csv(io.StringIO(text))
                                  for text in (case.boxes, case.labels, case.predictions))
    labels = labels.rename(columns={'Confidence': 'ConfidenceImageLabel'})
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # pandas' advice to the official script
        if case.segmentations is not None:
            boxes = utils.merge_boxes_and_masks(boxes,
                                                pd.read_csv(io.StringIO(case.segmentations)))
        rows_by_image = pd.concat([boxes, labels]).groupby('ImageID')
    for image_id, rows in rows_by_image:
        yield image_id, rows, predictions.loc[predictions['ImageID'] == image_id]


def _as_ours(truth: dict, found: dict, with_masks: bool) -> tuple[GroundTruth, Detections]:
    """The official evaluator's dictionaries as this project's input."""
    columns = [1, 3, 0, 2]  # ymin, xmin, ymax, xmax to XMin, XMax, YMin, YMax
    ours = GroundTruth(
        np.asarray(truth['groundtruth_classes'], np.int64) - 1,
        truth['groundtruth_boxes'][:, columns], truth['groundtruth_group_of'].astype(bool),
        np.asarray(truth['groundtruth_image_classes'], np.int64) - 1,
        _rles(truth['groundtruth_instance_masks']) if with_masks else None)
    boxes = np.asarray(found['detection_boxes'], np.float64)[:, columns]
    masks_found = _rles(found['detection_masks']) if with_masks else None
    return ours, Detections(np.asarray(found['detection_classes'], np.int64) - 1,
                            found['detection_scores'], masks_found, boxes)


def _rles(pixels: np.ndarray) -> list[dict | None]:
    if pixels.shape[1:] == (1, 1) and not pixels.any():
        return [None] * len(pixels)  # what the official reader makes of rows without masks
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]


def _compare_states(official_state, matches: Matches, positives: np.ndarray) -> None:
    ours = score(matches, positives)
    np.testing.assert_array_equal(positives, official_state.num_gt_instances_per_class)
    np.testing.assert_allclose(ours.average_precisions, official_state.average_precision_per_class,
                               rtol=0, atol=TOLERANCE)
    for class_id, scores, is_true in per_class(matches, len(positives)):
        theirs = official_state.scores_per_class[class_id]
        np.testing.assert_array_equal(scores, np.concatenate(theirs) if theirs else [])
        if positives[class_id]:
            precision, recall = precision_recall(scores, is_true, positives[class_id])
            np.testing.assert_array_equal(precision, official_state.precisions_per_class[class_id])
            np.testing.assert_array_equal(recall, official_state.recalls_per_class[class_id])
    assert (matches.instance[matches.outcome == DROPPED] == -1).all()


def equal(ours: float, theirs: float) -> bool:
    """Equal to 1e-12, nan where the other has nan."""
    return (math.isnan(ours) and math.isnan(theirs)) or abs(ours - theirs) <= TOLERANCE


THRESHOLDS = (0.5, 0.5, 0.5, 0.3, 0.55, 0.75)


def run_cases(number: int, seed: int) -> int:
    """Compare generated cases, on CSVs and in memory, until ``number`` of them were accepted.

    Returns:
        How many were compared. The first difference is shrunk to a small case and raised.
    """
    compared = 0

    def compare(case: Case, threshold: float) -> None:
        nonlocal compared
        with contextlib.suppress(RefusedError):
            compare_files(case)
            compare_in_memory(case, threshold)
            compared += 1

    while compared < number:
        compare_all = given(cases(), st.sampled_from(THRESHOLDS))(compare)
        compare_all = settings(max_examples=number - compared, deadline=None, database=None,
                               suppress_health_check=list(HealthCheck))(compare_all)
        set_seed(seed + compared)(compare_all)()
    return compared


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare with the official evaluator.')
    parser.add_argument('--cases', type=int, default=2000, help='cases to compare (default 2000)')
    parser.add_argument('--seed', type=int, help='generate the same cases again')
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f'comparing {arguments.cases} cases with the official evaluator, seed {seed} ...',
          flush=True)
    start = time.monotonic()
    compared = run_cases(arguments.cases, seed)
    print(f'{compared} generated cases, each on CSVs and in memory: 0 differences '
          f'({time.monotonic() - start:.0f} s)')


if __name__ == '__main__':
    run_command(main)
