"""The demo data as the two public buckets hold Open Images: a folder to serve."""

import csv
import os
import re
from pathlib import Path

CHALLENGE = 'openimages/challenge_2019'
IMAGES = 'open-images-dataset'
_MASKS = re.compile(r'(?:challenge-2019-)?(\w+)-masks-[0-9a-f]\.zip')
_FLAGS = ('IsOccluded', 'IsTruncated', 'IsDepiction', 'IsInside')


def publish_challenge(demo: Path, served: Path) -> None:
    """Its CSVs, archives and images; the demo's test images are the challenge's."""
    for path in (*demo.glob('challenge-2019-*.csv'), *demo.glob('challenge-2019-*.json')):
        _link(path, served / CHALLENGE / path.name)
    for path in demo.glob('masks/*.zip'):
        _link(path, served / CHALLENGE / f'{_MASKS.fullmatch(path.name)[1]}-masks' / path.name)
    publish_images(demo, served, test='challenge2018')


def publish_v7(demo: Path, served: Path) -> None:
    """The same data under the names, and with the columns, of the full release."""
    for path in demo.glob('masks/*.zip'):
        split = _MASKS.fullmatch(path.name)[1]
        name = path.name.removeprefix('challenge-2019-')
        _link(path, served / 'openimages' / 'v5' / f'{split}-masks' / name)
    _write_v7_classes(demo, served / 'openimages')
    for split in ('train', 'validation'):
        stem = f'challenge-2019-{split}-segmentation'
        bucket, v5 = served / 'openimages', served / 'openimages' / 'v5'
        _link(demo / f'{stem}-masks.csv', v5 / f'{split}-annotations-object-segmentation.csv')
        boxes = [{**row, 'Source': 'xclick', 'Confidence': '1', **dict.fromkeys(_FLAGS, '-1')}
                 for row in read_rows(demo / f'{stem}-bbox.csv')]
        write_rows(bucket / ('v6/oidv6-train-annotations-bbox.csv' if split == 'train' else
                             'v5/validation-annotations-bbox.csv'), boxes)
        labels = [{**row, 'Source': 'verification'}
                  for row in read_rows(demo / f'{stem}-labels.csv')]
        elsewhere = {**labels[0], 'ImageID': 'f' * 16}  # an image that has neither box nor mask
        write_rows(v5 / f'{split}-annotations-human-imagelabels-boxable.csv', [*labels, elsewhere])
    publish_images(demo, served)


def publish_images(demo: Path, served: Path, test: str = 'test') -> None:
    """Images by split."""
    for path in demo.glob('images/*/*.jpg'):
        split = path.parent.name
        _link(path, served / IMAGES / (test if split == 'test' else split) / path.name)


def _write_v7_classes(demo: Path, bucket: Path) -> None:
    (bucket / 'v7').mkdir(parents=True)
    text = (demo / 'challenge-2019-classes-description-segmentable.csv').read_text(encoding='utf-8')
    (bucket / 'v7' / 'oidv7-class-descriptions-boxable.csv').write_text(
        'LabelName,DisplayName\n' + text, encoding='utf-8')
    mids = [row[0] for row in csv.reader(text.splitlines())]
    (bucket / 'v5').mkdir(exist_ok=True)
    (bucket / 'v5' / 'classes-segmentation.txt').write_text('\n'.join(mids))
    _link(demo / 'challenge-2019-label300-segmentable-hierarchy.json',
          bucket / '2018_04' / 'bbox_labels_600_hierarchy.json')


def read_rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', encoding='utf-8', newline='') as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, target)
