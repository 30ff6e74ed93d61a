"""Files of a small evaluation."""

import numpy as np
import pytest

from projects.openimages.challenge.evaluate import EvaluatorFiles
from tests.evaluation.parity_cases import mask_text

WIDTH, HEIGHT = 8, 4


def square(left, right, width=WIDTH, height=HEIGHT):
    pixels = np.zeros((height, width), bool)
    pixels[:, left:right] = True
    return mask_text(pixels)


@pytest.fixture
def files(tmp_path) -> EvaluatorFiles:
    """Two images: in ``a`` a cat with mask, in ``b`` a cat with box only and a verified dog."""
    texts = {
        'boxes.csv': 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n'
                     'a,/m/cat,0.0,0.5,0.0,1.0,0\nb,/m/cat,0.5,1.0,0.0,1.0,0\n',
        'labels.csv': 'ImageID,LabelName,Confidence\na,/m/cat,1\nb,/m/cat,1\nb,/m/dog,0\n',
        'masks.csv': 'ImageID,LabelName,ImageWidth,ImageHeight,XMin,XMax,YMin,YMax,IsGroupOf,Mask\n'
                     f'a,/m/cat,{WIDTH},{HEIGHT},0.0,0.5,0.0,1.0,0,{square(0, 4)}\n',
        'map.pbtxt': 'item { name: "/m/cat" id: 1 }\nitem { name: "/m/dog" id: 2 }\n',
        'found.csv': 'ImageID,ImageWidth,ImageHeight,LabelName,Score,Mask\n'
                     f'a,{WIDTH},{HEIGHT},/m/cat,0.9,{square(0, 4)}\n'
                     f'b,{WIDTH},{HEIGHT},/m/cat,0.8,{square(4, 8)}\n'
                     f'b,{WIDTH},{HEIGHT},/m/dog,0.7,{square(0, 2)}\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return EvaluatorFiles(*(str(tmp_path / name) for name in (
        'boxes.csv', 'labels.csv', 'map.pbtxt', 'found.csv', 'metrics.csv', 'masks.csv')))
