"""The demo data under other releases' names, and in other folders."""

import shutil
import zipfile
from pathlib import Path

from tests.data.helpers import read_rows, table

CLASSES = 'challenge-2019-classes-description-segmentable.csv'
HIERARCHY = 'challenge-2019-label300-segmentable-hierarchy.json'

RELEASES = {
    # version: names of class list, classes with masks, boxes of train, boxes, labels of train,
    # labels of validation, masks
    'v5': ('class-descriptions-boxable.csv', 'classes-segmentation.txt',
           'train-annotations-bbox.csv', '{}-annotations-bbox.csv',
           'train-annotations-human-imagelabels-boxable.csv',
           'validation-annotations-human-imagelabels-boxable.csv',
           '{}-annotations-object-segmentation.csv'),
    'v6': ('oidv6-class-descriptions.csv', 'classes-segmentation.txt',
           'oidv6-train-annotations-bbox.csv', '{}-annotations-bbox.csv',
           'oidv6-train-annotations-human-imagelabels.csv',
           'validation-annotations-human-imagelabels.csv',
           '{}-annotations-object-segmentation.csv'),
    'v7': ('oidv7-class-descriptions-boxable.csv', 'oidv7-classes-segmentation.txt',
           'oidv6-train-annotations-bbox.csv', '{}-annotations-bbox.csv',
           'oidv7-train-annotations-human-imagelabels.csv',
           'oidv7-val-annotations-human-imagelabels.csv',
           '{}-annotations-object-segmentation.csv'),
    'fiftyone': ('validation/metadata/classes.csv', 'validation/metadata/segmentation_classes.csv',
                 'train/labels/detections.csv', '{}/labels/detections.csv',
                 'train/labels/classifications.csv', 'validation/labels/classifications.csv',
                 '{}/labels/segmentations.csv'),
}
BOX_COLUMNS = ('ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,'
               'IsGroupOf,IsDepiction,IsInside')
CLICKS = ''.join(f',XClick{n}{axis}' for n in range(1, 5) for axis in 'XY')


def as_release(root: Path, version: str, splits: tuple[str, ...] = ('train', 'validation')) -> None:
    """Write the challenge's files of some demo data as the full release has them.

    With flags of -1, a class without masks, labels by several sources, and labels of other classes
    and of images that have no box.
    """
    classes, segmentable, *names = RELEASES[version]
    mids = [line.partition(',')[0] for line in (root / CLASSES).read_text('utf-8').splitlines()]
    header = '' if version in ('v5', 'fiftyone') else 'LabelName,DisplayName\n'
    write(root / classes, header + '/m/0notseg,Without masks\n' + (root / CLASSES).read_text(
        encoding='utf-8'))
    write(root / segmentable, '\n'.join(mids) + '\n')
    write(root / ('validation/metadata/hierarchy.json' if version == 'fiftyone'
                  else 'bbox_labels_600_hierarchy.json'), (root / HIERARCHY).read_text('utf-8'))
    for split in splits:
        train = split == 'train'
        boxes_name, labels_name = names[0 if train else 1], names[2 if train else 3]
        clicks = CLICKS if train and version != 'v5' else ''
        write(root / boxes_name.format(split), release_boxes(root, split, clicks))
        write(root / labels_name, release_labels(root, split))
        write(root / names[4].format(split), table(root, 'masks', split).read_text('utf-8'))
    for archive in (root / 'masks').glob('*.zip'):
        shutil.copy(archive, archive.with_name(archive.name.removeprefix('challenge-2019-')))


def without_challenge(root: Path) -> None:
    """Remove the challenge's files."""
    for path in [*root.glob('challenge-2019-*'), *(root / 'masks').glob('challenge-2019-*')]:
        path.unlink()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


def release_boxes(root: Path, split: str, clicks: str) -> str:
    empty = ',' * clicks.count(',')
    rows = [f'{row["ImageID"]},xclick,{row["LabelName"]},1,{row["XMin"]},{row["XMax"]},'
            f'{row["YMin"]},{row["YMax"]},0,-1,{"1" if row["IsGroupOf"] == "1" else "-1"},-1,-1'
            for row in read_rows(table(root, 'bbox', split))]
    other = 'ffff,xclick,/m/0notseg,1,0.1,0.2,0.3,0.4,0,0,0,0,0'
    return '\n'.join(row + empty for row in [other, *rows]).join(
        [f'{BOX_COLUMNS}{clicks}\n', '\n'])


def release_labels(root: Path, split: str) -> str:
    rows = ['ImageID,Source,LabelName,Confidence', 'eeee,verification,/m/0notseg,1']
    for row in read_rows(table(root, 'labels', split)):
        image_id, mid, sign = row['ImageID'], row['LabelName'], row['Confidence']
        rows += [f'{image_id},verification,{mid},{sign}',
                 f'{image_id},crowdsource-verification,{mid},0',
                 f'eeee,verification,{mid},{sign}', f'{image_id},machine,/m/0imagelevel,0']
    return '\n'.join(rows) + '\n'


def masks_of(root: Path, split: str) -> dict[str, dict[str, bytes]]:
    """The mask files of a split's challenge archives, taken out: bytes by name, by shard."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted((root / 'masks').glob(f'*{split}-masks-*.zip')):
        with zipfile.ZipFile(path) as archive:
            found[path.stem[-1]] = {name: archive.read(name) for name in archive.namelist()}
        path.unlink()
    return found


def unpack_masks(root: Path, split: str, folder: str) -> None:
    """Put the masks into ``folder``, in which ``{shard}`` is the archive's character."""
    for shard, masks in masks_of(root, split).items():
        for name, data in masks.items():
            path = root / folder.format(shard=shard, SHARD=shard.upper()) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def move_images(root: Path, split: str, folder: str) -> None:
    """Move the images into ``folder``, in which ``{shard}`` is the image archive's character."""
    for path in sorted((root / 'images' / split).iterdir()):
        target = root / folder.format(shard=path.name[0]) / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    (root / 'images' / split).rmdir()
