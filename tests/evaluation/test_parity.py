"""This project's numbers against the official evaluator's, on generated and on fixed cases."""

import numpy as np
import pytest

from projects.openimages.challenge.evaluate import evaluate_files
from tests.evaluation.parity_cases import (
    BOX_HEAD,
    FOUND_BOX_HEAD,
    FOUND_HEAD,
    LABEL_HEAD,
    MASK_HEAD,
    Case,
    compare_files,
    compare_in_memory,
    mask_text,
    run_cases,
)


def test_generated_cases_have_the_official_numbers():
    assert run_cases(200, seed=2019) >= 200


def label_map(*names):
    return ''.join(f'item {{ name: "{name}" id: {number} }}\n'
                   for number, name in enumerate(names, start=1))


def lines(head, *rows):
    return '\n'.join([head, *rows]) + '\n'


def interval(start, stop, width):
    pixels = np.zeros((1, width), bool)
    pixels[0, start:stop] = True
    return mask_text(pixels)


def instance(image_id, name, start, stop, width, group_of=0, mask=True):
    """Rows of the boxes and the segmentations file; the mask fills its box."""
    box = f'{start / width},{stop / width},0.0,1.0,{group_of}'
    text = interval(start, stop, width) if mask else ''
    return f'{image_id},{name},{box}', f'{image_id},{name},{width},1,{box},{text}'


def found(image_id, name, score, start, stop, width):
    return f'{image_id},{width},1,{name},{score},{interval(start, stop, width)}'


def case(instances, labels, predictions, names=('/m/a', '/m/b')):
    return Case(label_map(*names), lines(BOX_HEAD, *(row for row, _ in instances)),
                lines(LABEL_HEAD, *labels), lines(MASK_HEAD, *(row for _, row in instances)),
                lines(FOUND_HEAD, *predictions))


CASES = {
    'overlaps that are equal in single precision only': case(
        [instance('i', '/m/a', 6274 - 4103, 8000, 12233), instance('i', '/m/a', 0, 12233, 12233)],
        [], [found('i', '/m/a', 0.9, 0, 6274, 12233),
             found('i', '/m/a', 0.8, 6274 - 4103, 8000, 12233)]),
    'many equal scores, more than numpy sorts by insertion': case(
        [instance('i', '/m/a', n, n + 4, 40) for n in range(0, 40, 4)], [],
        [found('i', '/m/a', 0.5, n % 36, n % 36 + 3 + n % 2, 40) for n in range(90)]),
    'one box in both files twice': case(
        [instance('i', '/m/a', 0, 4, 8)] * 2, [], [found('i', '/m/a', 0.9, 0, 4, 8)] * 3),
    'image ids that sort as numbers': case(
        [instance(n, '/m/a', 0, 4, 8) for n in (9, 10, 100)], ['9,/m/b,1'],
        [found(9, '/m/a', 0.5, 0, 4, 8), found(10, '/m/a', 0.5, 4, 8, 8),
         found(100, '/m/a', 0.5, 0, 4, 8)]),
    'group-of instance with mask, best score zero': case(
        [instance('i', '/m/a', 0, 8, 8, group_of=1)], [], [found('i', '/m/a', 0, 0, 2, 8)]),
    'prediction on an image and of a class nobody knows of': case(
        [instance('i', '/m/a', 0, 4, 8)], ['i,/m/a,1'],
        [found('other', '/m/a', 0.9, 0, 4, 8), found('i', '/m/b', 0.9, 0, 4, 8)]),
    'labels only': Case(label_map('/m/a'), lines(BOX_HEAD), lines(LABEL_HEAD, 'i,/m/a,1'),
                        lines(MASK_HEAD), lines(FOUND_HEAD, found('i', '/m/a', 0.9, 0, 4, 8))),
    'no predictions': case([instance('i', '/m/a', 0, 4, 8)], [], []),
    'scores that differ in the text only': case(
        [instance('i', '/m/a', 0, 4, 8)], [],
        [found('i', '/m/a', score, start, 8, 8) for score, start in (
            ('0.30000000000000004', 1), ('0.3', 0), ('0.29999999999999999', 4), ('3e-1', 0))]),
    'boxes': Case(label_map('/m/a'), lines(BOX_HEAD, 'i,/m/a,0.1,0.2,0.3,0.4,0',
                                           'i,/m/a,0.2,0.4,0.3,0.4,1'), lines(LABEL_HEAD), None,
                  lines(FOUND_BOX_HEAD, 'i,/m/a,0.9,0.1,0.2,0.3,0.35', 'i,/m/a,1,0.2,0.3,0.3,0.4',
                        'i,/m/a,0.5,0.4,0.3,0.3,0.4')),
    'boxes from masks': Case(label_map('/m/a'), lines(BOX_HEAD, 'i,/m/a,0,0.5,0,1,0'),
                             lines(LABEL_HEAD), None,
                             lines(FOUND_HEAD, found('i', '/m/a', 0.9, 0, 2, 8))),
}


@pytest.mark.parametrize('name', CASES)
def test_fixed_case_has_the_official_numbers(name):
    compare_files(CASES[name])
    compare_in_memory(CASES[name])


VCM_LABEL_MAP = """item {
  name: "person"
  id: 1
  display_name: "person"
}
item {
  name: "traffic_light"
  id: 10
  display_name: "traffic light"
}
"""
VCM_LABELS = lines('ImageID,LabelName,Confidence', '00ab,person,1', '00ab,traffic_light,0',
                   '01cd,traffic_light,1')
VCM_BOXES = ('00ab,person,0.0,0.5,0.0,1.0,0', '00ab,person,0.5,1.0,0.0,1.0,1',
             '01cd,traffic_light,0.25,0.75,0.0,1.0,0')
VCM_FOUND = (('00ab,person,0.9', 0, 4), ('00ab,person,0.8', 5, 7),
             ('00ab,traffic_light,0.7', 0, 4), ('01cd,traffic_light,0.6', 2, 6))


@pytest.mark.parametrize('with_masks', [False, True])
def test_ground_truth_of_video_coding_evaluations_goes_through_unchanged(with_masks, tmp_path):
    """MPEG's files: classes by name, no hierarchy, and predictions with boxes and masks at once."""
    found_head = 'ImageID,LabelName,Score,XMin,XMax,YMin,YMax'
    predictions = [f'{start},{left / 8},{right / 8},0.0,1.0' for start, left, right in VCM_FOUND]
    segmentations = None
    if with_masks:
        found_head += ',ImageWidth,ImageHeight,Mask'
        predictions = [f'{row},8,1,{interval(left, right, 8)}' for row, (_, left, right)
                       in zip(predictions, VCM_FOUND, strict=True)]
        segmentations = lines(MASK_HEAD, *(
            '{},{},8,1,{},{},{},{},{},'.format(*box.split(',')) + interval(left, right, 8)
            for box, left, right in ((VCM_BOXES[0], 0, 4), (VCM_BOXES[2], 2, 6))))
    case = Case(VCM_LABEL_MAP, lines('ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf', *VCM_BOXES),
                VCM_LABELS, segmentations, lines(found_head, *predictions))
    compare_files(case)
    result = evaluate_files(case.write(tmp_path))
    # The detection of a light that is verified absent in 00ab ranks above the right one in 01cd.
    assert result.average_precisions[[0, 9]].tolist() == [1.0, 0.5]
