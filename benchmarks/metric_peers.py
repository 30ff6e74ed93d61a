"""COCO evaluators on the detections of ``metric_speed.py``, in plain COCO mode.

    python benchmarks/metric_speed.py --peers      runs them side by side with ours

COCO mode knows no verified labels and no hierarchy, and looks at ten IoU thresholds instead of one;
what is compared is the time to load the same masks and to match them.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.openimages.masks import bbox, decode_text

PEERS = {'hotcoco': 'hotcoco', 'faster-coco-eval': 'faster_coco_eval'}


def is_installed(peer: str) -> bool:
    return importlib.util.find_spec(PEERS[peer]) is not None


def write_coco_files(folder: Path) -> None:
    """``coco.json`` and ``results.json`` from the CSVs in the folder."""
    with (folder / 'labels.csv').open() as file:
        names = sorted({row['LabelName'] for row in csv.DictReader(file)})
    categories = {name: number for number, name in enumerate(names, start=1)}
    images: dict[str, dict[str, Any]] = {}
    annotations = [{**item, 'id': number, 'iscrowd': int(group_of), 'area': item['bbox'][2]}
                   for number, (item, group_of) in enumerate(
                       _items(folder / 'segmentations.csv', images, categories), start=1)]
    with (folder / 'results.json').open('w') as file:
        file.write('[' + ',\n'.join(json.dumps(item) for item, _ in _items(
            folder / 'predictions.csv', images, categories)) + ']')
    with (folder / 'coco.json').open('w') as file:
        json.dump({'info': {}, 'images': list(images.values()), 'annotations': annotations,
                   'categories': [{'id': n, 'name': name} for name, n in categories.items()]}, file)


def _items(path: Path, images: dict[str, dict[str, Any]],
           categories: dict[str, int]) -> Iterator[tuple[dict[str, Any], bool]]:
    with path.open() as file:
        for row in csv.DictReader(file):
            width, height = int(row['ImageWidth']), int(row['ImageHeight'])
            image = images.setdefault(row['ImageID'], {
                'id': len(images) + 1, 'file_name': row['ImageID'], 'width': width,
                'height': height})
            mask = decode_text(row['Mask'], height, width)
            item = {'image_id': image['id'], 'category_id': categories[row['LabelName']],
                    'bbox': bbox([mask])[0].tolist(),
                    'segmentation': {'size': mask['size'], 'counts': mask['counts'].decode()}}
            if 'Score' in row:
                item['score'] = float(row['Score'])
            yield item, row.get('IsGroupOf') == '1'


def evaluate(peer: str, folder: Path) -> None:
    """Load and match, as the peer's own documentation does it."""
    truth_file, results_file = str(folder / 'coco.json'), str(folder / 'results.json')
    if peer == 'hotcoco':
        from hotcoco import COCO, COCOeval  # type: ignore[import-not-found]
        truth = COCO(truth_file)
        evaluation = COCOeval(truth, truth.load_res(results_file), 'segm')
    else:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-not-found]
        truth = COCO(truth_file)
        evaluation = COCOeval_faster(truth, truth.loadRes(results_file), iouType='segm')
    evaluation.evaluate()


if __name__ == '__main__':
    with contextlib.redirect_stdout(sys.stderr):
        evaluate(sys.argv[1], Path(sys.argv[2]))
