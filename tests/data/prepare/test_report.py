"""The report, kind by kind: a split of two images with exactly one thing wrong."""

import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.openimages.common.errors import UserError
from projects.openimages.data import layout, problems
from projects.openimages.data.official.releases import CHALLENGE, Published
from projects.openimages.data.prepare import report as report_module
from projects.openimages.data.prepare.run import PrepareOptions, prepare_split
from projects.openimages.data.problems import BAD_KINDS, NOTE_KINDS
from projects.openimages.labels import LabelSpace
from tests.helpers import write_classes

WIDTH, HEIGHT = 40, 30
PREFIX = 'challenge-2019-validation'
BOXES, MASKS, LABELS = (f'{PREFIX}-segmentation-{name}.csv' for name in ('bbox', 'masks', 'labels'))
ROTATIONS = 'validation-images-with-rotation.csv'
MASK = 'a_m0cat_f0.png'
SUSPECT = '1d5ef05c8da80e31'


def png(left: int, right: int, top: int, bottom: int, width=WIDTH, height=HEIGHT) -> bytes:
    """A mask file with a rectangle set."""
    pixels = np.zeros((height, width), np.uint8)
    pixels[top:bottom, left:right] = 255
    return encoded(Image.fromarray(pixels).convert('1'), 'PNG')


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(orientation: int | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    return encoded(Image.new('RGB', (WIDTH, HEIGHT)), 'JPEG', exif=exif)


def mask_row(name: str, mid: str, *box: float) -> str:
    return f'{name},a,{mid},f0,{",".join(map(str, box))},0.5,'


@dataclass
class Split:
    """The files of a validation split; as it stands, without a flaw.

    Image ``a`` has a cat with a mask and is verified to hold no cup, ``b`` is a group of dogs.
    """

    boxes: list[str] = field(default_factory=lambda: [
        'a,/m/0cat,0.1,0.5,0.2,0.6,0', 'b,/m/0dog,0.0,1.0,0.0,1.0,1'])
    masks: list[str] = field(default_factory=lambda: [
        mask_row(MASK, '/m/0cat', 0.1, 0.5, 0.2, 0.6)])
    labels: list[str] = field(default_factory=lambda: [
        'a,/m/0cat,1', 'b,/m/0dog,1', 'a,/m/0cup,0'])
    pngs: dict[str, bytes] = field(default_factory=lambda: {MASK: png(4, 20, 6, 18)})
    images: dict[str, bytes] = field(default_factory=lambda: {'a': jpeg(), 'b': jpeg(1)})
    archives: dict[str, bytes] = field(default_factory=dict)
    rotations: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        """Write the files."""
        for name, header, rows in (
                (BOXES, 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf', self.boxes),
                (MASKS, 'MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,'
                        'PredictedIoU,Clicks', self.masks),
                (LABELS, 'ImageID,LabelName,Confidence', self.labels)):
            (root / name).write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
        if self.rotations:
            (root / ROTATIONS).write_text('\n'.join(['ImageID,Title,Rotation', *self.rotations]),
                                          encoding='utf-8')
        for folder in ('masks', 'images/validation'):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for image_id, data in self.images.items():
            (root / f'images/validation/{image_id}.jpg').write_bytes(data)
        with zipfile.ZipFile(root / f'masks/{PREFIX}-masks-a.zip', 'w') as archive:
            for name, data in self.pngs.items():
                archive.writestr(name, data)
        for name, data in self.archives.items():
            (root / 'masks' / name).write_bytes(data)

    def prepare(self, root: Path, skip_bad: bool = True, **options) -> tuple[dict, str]:
        """Write the files, prepare the split, and return both reports."""
        self.write(root)
        classes = write_classes(root)
        folder = prepare_split(root, 'validation', LabelSpace.read(*classes), classes,
                               PrepareOptions(skip_bad=skip_bad, missing=self.missing,
                                              **options)).folder
        return (json.loads((folder / 'report.json').read_text(encoding='utf-8')),
                (folder / 'report.txt').read_text(encoding='utf-8'))


@dataclass(frozen=True)
class Finding:
    """A flaw, and the one row of the report that must tell of it."""

    change: Callable[[Split], object]
    words: str
    file: str | None = MASKS
    row: int | None = 2
    image_id: str | None = 'a'
    instance: int | None = None

    def as_json(self) -> dict:
        values = dataclasses.asdict(self)
        return {name: values[name] for name in ('file', 'row', 'image_id', 'instance')
                if values[name] is not None}


def set_mask(data: bytes) -> Callable[[Split], object]:
    return lambda split: split.pngs.update({MASK: data})


def set_mask_row(*box: float) -> Callable[[Split], object]:
    return lambda split: split.masks.__setitem__(0, mask_row(MASK, '/m/0cat', *box))


def add_lone_mask(split: Split) -> None:
    split.masks.append(mask_row('a_m0dog_f1.png', '/m/0dog', 0.5, 0.9, 0.5, 0.9))
    split.labels.append('a,/m/0dog,1')
    split.pngs['a_m0dog_f1.png'] = png(20, 36, 15, 27)


def add_suspect_image(split: Split) -> None:
    split.labels.append(f'{SUSPECT},/m/0cat,0')
    split.images[SUSPECT] = jpeg()


FINDINGS = {
    'broken_row': Finding(lambda split: split.boxes.append('a,/m/0cat,0.1'),
                          "3 columns, expected 7: 'a,/m/0cat,0.1'", BOXES, 4, None),
    'contradicting_row': Finding(lambda split: split.labels.append('a,/m/0cup,1'),
                                 'the same label with another Confidence than row 4', LABELS, 5),
    'unknown_class': Finding(lambda split: split.labels.append('b,/m/0zebra,1'),
                             "unknown class '/m/0zebra'", LABELS, 5, 'b'),
    'box_outside_image': Finding(lambda split: split.boxes.append('a,/m/0cup,0.1,1.5,0.2,0.3,0'),
                                 'outside 0..1: XMin 0.1, XMax 1.5', BOXES, 4),
    'missing_image': Finding(lambda split: split.images.pop('b'), 'no such image', BOXES, 3, 'b'),
    'broken_image': Finding(lambda split: split.images.update(b=b'GIF'), 'not an image', BOXES, 3,
                            'b'),
    'broken_archive': Finding(lambda split: split.archives.update({f'{PREFIX}-masks-b.zip': b'PK'}),
                              'corrupt or truncated zip', f'masks/{PREFIX}-masks-b.zip', None,
                              None),
    'unsafe_archive_name': Finding(lambda split: split.pngs.update({'../evil.png': b''}),
                                   "'../evil.png' leaves", f'masks/{PREFIX}-masks-a.zip', None,
                                   None),
    'missing_mask': Finding(lambda split: split.pngs.clear(), 'no such file in the mask archives'),
    'broken_mask': Finding(set_mask(b'GIF'), 'not a PNG'),
    'repeated_row': Finding(lambda split: split.boxes.append(split.boxes[1]),
                            'says again what row 3 says', BOXES, 4, 'b'),
    'mask_without_box': Finding(add_lone_mask, 'no box of its class', row=3),
    'distant_join': Finding(set_mask_row(0.11, 0.5, 0.2, 0.6), f'is 0.01 from that in row 2 of '
                            f'{BOXES}', instance=0),
    'empty_mask': Finding(set_mask(png(0, 0, 0, 0)), 'no pixel is set', instance=0),
    'mask_outside_box': Finding(set_mask(png(4, 23, 6, 18)), 'reaches 3 pixels outside',
                                instance=0),
    'shape_mismatch': Finding(set_mask(png(2, 10, 6, 18, WIDTH // 2, HEIGHT)),
                              '20x30 pixels, the image has 40x30', instance=0),
    'box_without_area': Finding(lambda split: split.boxes.append('a,/m/0cat,0.3,0.3,0.7,0.8,0'),
                                'box without area: [0.3, 0.3, 0.7, 0.8]', BOXES, 4),
    'unverified_class': Finding(lambda split: split.labels.remove('b,/m/0dog,1'),
                                'no label of the box', BOXES, 3, 'b', 1),
    'absent_class': Finding(lambda split: split.boxes.append('a,/m/0cup,0.1,0.2,0.2,0.3,0'),
                            'class is absent', BOXES, 4, 'a', 1),
    'rotated_image': Finding(lambda split: split.images.update(b=jpeg(6)), 'EXIF orientation 6',
                             'images/validation/b.jpg', None, 'b'),
    'rotated_original': Finding(
        lambda split: split.rotations.extend(['a,"6"", wide",0.0', 'x,,180.0', 'b,"two\nlines",',
                                              'b,,270.0']),
        'turned by 270.0 degrees', ROTATIONS, 6, 'b'),
    'suspect_image': Finding(add_suspect_image, 'public solutions leave it out', None, None,
                             SUSPECT),
    'missing_file': Finding(lambda split: split.missing.update(segmentable='no list'),
                            'segmentable: no list', None, None, None),
    'extra_image': Finding(lambda split: split.images.update(c=jpeg()), 'no CSV mentions it',
                           'images/validation/c.jpg', None, 'c'),
}


def test_every_kind_is_tested():
    assert set(FINDINGS) == {*BAD_KINDS, *NOTE_KINDS}


def test_split_without_a_flaw_has_no_problem(tmp_path):
    report, text = Split().prepare(tmp_path, skip_bad=False)
    assert report['problems'] == {}
    assert 'No problems.' in text
    assert not any(kind in text for kind in FINDINGS)


@pytest.mark.parametrize('kind', FINDINGS)
def test_finding_is_reported_with_its_place_and_nothing_else_is(tmp_path, kind):
    finding, split = FINDINGS[kind], Split()
    finding.change(split)
    report, text = split.prepare(tmp_path, skip_bad=kind in BAD_KINDS)
    assert set(report['problems']) == {kind}
    found = report['problems'][kind]
    assert found['meaning'] == {**BAD_KINDS, **NOTE_KINDS}[kind]
    assert found['stops'] == (kind in BAD_KINDS)
    assert found['count'] == len(found['rows']) == 1
    row, = found['rows']
    message = row.pop('message')
    assert row == finding.as_json() and finding.words in message
    heading = text.splitlines().index(f'  {kind:<22}{1:>12,}  {found["meaning"]}')
    place = Path(finding.file or '').name + (f' row {finding.row}' if finding.row else '')
    shown = f'{place}: {message}' if place else message
    assert text.splitlines()[heading + 1] == f'      {shown}'
    assert f'{"Problems" if found["stops"] else "Notes"} (all' in text


@pytest.mark.parametrize('kind', BAD_KINDS)
def test_bad_input_stops_the_work_unless_it_is_to_be_skipped(tmp_path, kind):
    split = Split()
    FINDINGS[kind].change(split)
    with pytest.raises(UserError, match=re.escape(FINDINGS[kind].words)):
        split.prepare(tmp_path, skip_bad=False)


@pytest.mark.parametrize('change', [
    set_mask_row(0.1049, 0.5, 0.2, 0.6),
    set_mask(png(2, 22, 4, 20)),
    lambda split: split.boxes.append('a,/m/0cat,0.3,0.300001,0.7,0.8,-1'),
    lambda split: split.labels.append('a,/m/0dog,1'),
    lambda split: split.images.update(b=jpeg(1)),
], ids=['box 0.0049 from its mask\'s', 'mask two pixels outside its box', 'thin box',
        'label without a box', 'EXIF orientation 1'])
def test_what_is_near_a_finding_is_none(tmp_path, change):
    split = Split()
    change(split)
    assert split.prepare(tmp_path, skip_bad=False)[0]['problems'] == {}


def test_findings_are_counted_and_the_first_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(problems, 'LISTED_PER_KIND', 6)
    split = Split()
    split.boxes += [f'a,/m/0cat,0.3,0.3,0.{n},0.8,0' for n in range(7)]
    split.labels += ['a,/m/0cat,1'] * 8
    report, text = split.prepare(tmp_path)
    for kind, count, first in (('box_without_area', 7, 4), ('repeated_row', 8, 5)):
        found = report['problems'][kind]
        assert found['count'] == count
        assert [row['row'] for row in found['rows']] == list(range(first, first + 6))
        heading = text.splitlines().index(f'  {kind:<22}{count:>12,}  {found["meaning"]}')
        shown = text.splitlines()[heading + 1:heading + 7]
        assert all(f'row {first + n}: ' in line for n, line in enumerate(shown[:-1]))
        assert shown[-1] == f'      and {count - 5} more'


@pytest.mark.parametrize(('published', 'lines'), [
    (Published(1, 1), ['Complete: all 1 images and 1 masks that are published.']),
    (Published(3, 1), ['Not what is published, counting images with masks',
                       'images 1 of 3, 2 missing', 'masks 1 of 1']),
    (Published(0, 4000), ['Not what is published', 'masks 1 of 4,000, 3,999 missing']),
    (Published(1, 0), None),  # none is published, so nothing is said
])
def test_counts_are_compared_with_the_published_ones(tmp_path, monkeypatch, published, lines):
    monkeypatch.setattr(layout, 'CHALLENGE', dataclasses.replace(
        CHALLENGE, published={'validation': published}))
    report, text = Split().prepare(tmp_path, skip_bad=False)
    shown = [' '.join(line.split()) for line in text.splitlines()]
    if lines is None:
        assert 'published' not in report and 'published' not in text
        return
    first = shown.index(lines[0])
    assert shown[first:first + len(lines)] == lines
    assert report['published']['complete'] == lines[0].startswith('Complete')
    assert report['published']['masks'] == 1


def test_masks_that_are_missing_do_not_count_as_there(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, 'CHALLENGE', dataclasses.replace(
        CHALLENGE, published={'validation': Published(1, 1)}))
    split = Split()
    split.pngs.clear()
    assert split.prepare(tmp_path)[0]['published']['complete'] is False


@pytest.mark.parametrize('split', ['test', 'challenge2018'])
def test_test_images_of_the_wrong_release_are_called_so(tmp_path, monkeypatch, split):
    monkeypatch.setattr(report_module, 'RELEASE_TEST_IMAGES', 2)
    Split().write(tmp_path)
    for name in 'ab':
        image = tmp_path / f'images/{split}/{name}.jpg'
        image.parent.mkdir(exist_ok=True)
        image.write_bytes(jpeg())
    classes = write_classes(tmp_path)
    folder = prepare_split(tmp_path, split, LabelSpace.read(*classes), classes,
                           PrepareOptions()).folder
    text = (folder / 'report.txt').read_text('utf-8')
    assert 'images               2 of 99,999, 99,997 missing' in text
    assert 'test images of the full release; those of the challenge are challenge2018' in text


def test_scaled_masks_are_a_count_and_no_problem(tmp_path):
    split = Split()
    split.pngs[MASK] = png(2, 10, 3, 9, WIDTH // 2, HEIGHT // 2)
    report, text = split.prepare(tmp_path, skip_bad=False)
    assert report['counts']['masks_scaled'] == 1 and report['problems'] == {}
    assert 'scaled to the size of their image 1' in ' '.join(text.split())


def test_one_kind_is_skipped_and_another_still_stops(tmp_path):
    split = Split()
    split.images.pop('b')
    split.boxes.append('a,/m/0cup,0.1,1.5,0.2,0.3,0')
    with pytest.raises(UserError, match=r'XMax 1\.5.* \(--skip box_outside_image goes on'):
        split.prepare(tmp_path, skip_bad=False, skip=frozenset({'missing_image'}))
    with pytest.raises(UserError, match=r'no such image \(--skip missing_image goes on without\)'):
        split.prepare(tmp_path, skip_bad=False, skip=frozenset({'box_outside_image'}))
    report, _ = split.prepare(tmp_path, skip_bad=False,
                              skip=frozenset({'missing_image', 'box_outside_image'}))
    assert set(report['problems']) == {'missing_image', 'box_outside_image'}


@pytest.mark.parametrize('rows', [
    ['a,/m/0cat,0.1,0.5,0.2,0.6,0', 'b,/m/0dog,0.0,1.0,0.0,1.0,1'],
    ['a,/m/0cat,0.1,0.5,0.2,0.6,-1'],  # nobody looked: no contradiction
])
def test_agreeing_repeats_stop_nothing_and_add_nothing(tmp_path, rows):
    split = Split()
    split.boxes += rows
    split.labels += split.labels
    split.masks += split.masks
    report, _ = split.prepare(tmp_path, skip_bad=False)
    assert report['problems']['repeated_row']['count'] == len(rows) + 4
    assert set(report['problems']) == {'repeated_row'}
    assert report['counts']['instances'] == 2 and report['counts']['masks'] == 1
    assert report['counts']['labels'] == 3


def test_contradicting_rows_keep_the_first(tmp_path):
    split = Split()
    split.boxes.append('b,/m/0dog,0.0,1.0,0.0,1.0,0')
    split.labels.append('a,/m/0cup,1')
    split.masks.append(mask_row(MASK, '/m/0cat', 0.3, 0.5, 0.2, 0.6))
    report, _ = split.prepare(tmp_path)
    assert report['problems']['contradicting_row']['count'] == 3
    assert report['counts']['group_of'] == 1 and report['counts']['labels_present'] == 2
    assert report['counts']['masks'] == 1 and report['counts']['instances'] == 2
