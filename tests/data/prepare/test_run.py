"""Preparing whole splits: what comes out, and that it does not depend on how."""

import json
import math
import os
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from projects.openimages.common.errors import UserError
from projects.openimages.data.export.coco import coco_image_id
from projects.openimages.data.prepare import shards
from projects.openimages.masks import decode_text
from tests.data.helpers import open_prepared, outputs, prepare, read_rows, table
from tests.helpers import run_tool


def test_every_mask_is_the_archives_png_at_image_size(prepared_data):
    index = open_prepared(prepared_data)
    by_box = {}
    for row in read_rows(table(prepared_data, 'masks')):
        archive = (prepared_data / 'masks'
                   / f'challenge-2019-train-masks-{row["MaskPath"][0]}.zip')
        with zipfile.ZipFile(archive) as file, file.open(row['MaskPath']) as png:
            image = Image.open(png).convert('L')
            image.load()
        by_box.setdefault((row['ImageID'], row['LabelName']), []).append((row, image))
    checked = 0
    for number in range(index.num_images):
        record = index.image(number)
        for n, rle in enumerate(record.masks):
            if rle is None:
                continue
            key = record.image_id, index.label_space.mids[record.class_ids[n]]
            _, image = min(by_box[key], key=lambda item: max(
                abs(float(item[0][f'Box{side}']) - record.boxes[n, i])
                for i, side in enumerate(('XMin', 'XMax', 'YMin', 'YMax'))))
            scaled = np.asarray(image.resize((record.width, record.height),
                                             Image.Resampling.NEAREST)) > 0
            assert np.array_equal(coco_mask.decode(rle).astype(bool), scaled)
            assert record.mask_area[n] == scaled.sum()
            checked += 1
    assert checked == sum(map(len, by_box.values()))


def test_instances_are_the_boxes_csv_in_its_order_with_exact_numbers(prepared_data):
    index = open_prepared(prepared_data)
    expected: dict[str, list] = {}
    for row in read_rows(table(prepared_data, 'bbox')):
        expected.setdefault(row['ImageID'], []).append(
            (row['LabelName'], *(float(row[side]) for side in ('XMin', 'XMax', 'YMin', 'YMax')),
             row['IsGroupOf'] == '1'))
    for number, image_id in enumerate(index.image_ids):
        record = index.image(number)
        found = [(index.label_space.mids[c], *box, group) for c, box, group in zip(
            record.class_ids, record.boxes.tolist(), record.is_group_of.tolist(), strict=True)]
        assert found == expected.get(image_id, [])


def test_images_are_those_of_any_csv_and_labels_are_the_labels_csv(prepared_data):
    index = open_prepared(prepared_data)
    labels = read_rows(table(prepared_data, 'labels'))
    mentioned = {row['ImageID'] for name in ('bbox', 'masks', 'labels')
                 for row in read_rows(table(prepared_data, name))}
    assert list(index.image_ids) == sorted(mentioned)
    found = {(index.image_ids[n], index.label_space.mids[c], bool(present))
             for n in range(index.num_images) for c, present in zip(
                 index.image(n).label_class_ids, index.image(n).label_present, strict=True)}
    assert found == {(row['ImageID'], row['LabelName'], row['Confidence'] == '1')
                     for row in labels}


def test_test_split_is_every_image_of_its_folder_with_its_size(prepared_data):
    index = open_prepared(prepared_data, 'test')
    paths = sorted((prepared_data / 'images' / 'test').glob('*.jpg'))
    assert list(index.image_ids) == [path.stem for path in paths]
    sizes = [Image.open(path).size for path in paths]
    assert list(zip(index.widths.tolist(), index.heights.tolist(), strict=True)) == sizes
    coco = json.loads((prepared_data / 'prepared/test/coco.json').read_text(encoding='utf-8'))
    assert len(coco['images']) == len(paths) and coco['annotations'] == []


def test_coco_json_says_what_the_index_says(prepared_data):
    index = open_prepared(prepared_data)
    coco = COCO(str(prepared_data / 'prepared/train/coco.json'))
    assert sorted(coco.anns) == list(range(1, index.num_instances + 1))
    assert [coco.cats[c + 1]['name'] for c in range(300)] == list(index.label_space.names)
    rows = np.repeat(np.arange(index.num_images), np.diff(index.instance_offsets))
    for n in range(index.num_instances):
        annotation = coco.anns[n + 1]
        image = coco.imgs[annotation['image_id']]
        assert annotation['image_id'] == coco_image_id(index.image_ids[rows[n]])
        assert image['file_name'] == f'{index.image_ids[rows[n]]}.jpg'
        assert annotation['category_id'] == index.class_ids[n] + 1
        assert annotation['iscrowd'] == int(index.is_group_of[n] or not index.has_mask[n])
        mask = coco.annToMask(annotation)
        if index.has_mask[n]:
            assert annotation['segmentation']['counts'].encode() == index.mask_counts(n)
            assert annotation['area'] == mask.sum()
            assert annotation['bbox'] == index.mask_box[n].tolist()
        else:
            left, top, width, height = annotation['bbox']
            touched = np.zeros(mask.shape, bool)
            touched[int(top):math.ceil(top + height), int(left):math.ceil(left + width)] = True
            assert np.array_equal(mask, touched) and annotation['area'] > 0


def test_polygons_are_near_their_masks_and_the_report_says_how_near(data_root):
    prepare(data_root, polygon_tolerance=0.5)
    report = json.loads((data_root / 'prepared/train/report.json').read_text(encoding='utf-8'))
    assert report['polygons']['masks'] == report['counts']['masks']
    assert report['polygons']['mean_iou'] > 0.9
    index = open_prepared(data_root)
    coco = COCO(str(data_root / 'prepared/train/coco.json'))
    ious = []
    for n in np.flatnonzero(index.has_mask):
        annotation = coco.anns[int(n) + 1]
        if isinstance(annotation['segmentation'], list):
            drawn = coco.annToMask(annotation).astype(bool)
            mask = coco_mask.decode({'size': list(drawn.shape),
                                     'counts': index.mask_counts(n)}).astype(bool)
            ious.append((drawn & mask).sum() / (drawn | mask).sum())
    assert len(ious) == report['polygons']['masks'] - report['polygons']['as_rle']
    assert np.mean(ious) == pytest.approx(report['polygons']['mean_iou'])
    assert min(ious) == pytest.approx(report['polygons']['least_iou'])


def test_tf_ground_truth_repeats_instances_for_their_ancestors(prepared_data):
    index = open_prepared(prepared_data)
    folder = prepared_data / 'prepared/train'
    boxes = read_rows(folder / 'tf_boxes.csv')
    masks = read_rows(folder / 'tf_segmentations.csv')
    space = index.label_space
    copies = np.array([1 + len(space.ancestors(c)) for c in index.class_ids])
    assert len(boxes) == copies.sum() > index.num_instances
    assert len(masks) == copies[index.has_mask].sum()
    sides = ('ImageID', 'LabelName', 'XMin', 'XMax', 'YMin', 'YMax', 'IsGroupOf')
    box_texts = {tuple(row[side] for side in sides) for row in boxes}
    assert all(tuple(row[side] for side in sides) in box_texts for row in masks)
    row = masks[0]
    rle = decode_text(row['Mask'], int(row['ImageHeight']), int(row['ImageWidth']))
    assert rle['counts'] in [index.mask_counts(n) for n in range(index.num_instances)]


def test_tf_labels_say_each_class_of_an_image_once(prepared_data):
    rows = read_rows(prepared_data / 'prepared/validation/tf_labels.csv')
    keys = [(row['ImageID'], row['LabelName']) for row in rows]
    assert len(set(keys)) == len(keys)
    index = open_prepared(prepared_data, 'validation')
    space = index.label_space
    said = {(row['ImageID'], row['LabelName']): row['Confidence'] for row in rows}
    for n, image_id in enumerate(index.image_ids):
        record = index.image(n)
        for class_id in record.label_class_ids[record.label_present]:
            for other in (class_id, *space.ancestors(class_id)):
                assert said[image_id, space.mids[other]] == '1'


def test_report_counts_the_rows(prepared_data):
    report = json.loads((prepared_data / 'prepared/train/report.json').read_text(encoding='utf-8'))
    boxes = read_rows(table(prepared_data, 'bbox'))
    masks = read_rows(table(prepared_data, 'masks'))
    counts = report['counts']
    assert counts['instances'] == len(boxes) and counts['masks'] == len(masks)
    assert counts['boxes_without_mask'] == len(boxes) - len(masks)
    assert counts['group_of'] == sum(row['IsGroupOf'] == '1' for row in boxes)
    assert sum(report['joins']['by_distance'].values()) == len(masks)
    commonest = report['classes'][0]
    assert commonest['masks'] == sum(row['LabelName'] == commonest['mid'] for row in masks)
    assert 0 < counts['masks_scaled'] < counts['masks']


def test_output_does_not_depend_on_workers(data_root, prepared_data, monkeypatch):
    monkeypatch.setattr(shards, 'MASKS_PER_SHARD', 8)
    prepare(data_root, workers=2)
    assert outputs(data_root) == outputs(prepared_data)


def test_extracted_masks_give_the_same_output(data_root, prepared_data):
    for archive in sorted((data_root / 'masks').glob('*train*.zip')):
        folder = data_root / 'masks' / 'train' / f'train-masks-{archive.stem[-1]}'
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        archive.unlink()
    prepare(data_root)
    assert outputs(data_root) == outputs(prepared_data)


def test_compressed_archives_give_the_same_output(data_root, prepared_data):
    for archive in (data_root / 'masks').glob('*train*.zip'):
        with zipfile.ZipFile(archive) as file:
            entries = [(name, file.read(name)) for name in file.namelist()]
        with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
            for name, data in entries:
                file.writestr(f'folder/{name}', data)
    prepare(data_root)
    assert outputs(data_root) == outputs(prepared_data)


@pytest.mark.parametrize('header', ['ImageID,ImageWidth,ImageHeight,PredictionString',
                                    'image_id,image_w,image_h'])
def test_sizes_csv_replaces_the_images(data_root, prepared_data, header):
    index = open_prepared(prepared_data)
    rows = [f'{image_id},{width},{height}' + (',' if 'Prediction' in header else '')
            for image_id, width, height in zip(index.image_ids, index.widths, index.heights,
                                               strict=True)]
    sizes = data_root / 'sizes.csv'
    sizes.write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
    shutil.rmtree(data_root / 'images')
    prepare(data_root, sizes=sizes)
    assert outputs(data_root) == outputs(prepared_data)


def test_sizes_csv_alone_makes_a_test_split(data_root):
    shutil.rmtree(data_root / 'images' / 'test')
    sizes = data_root / 'sizes.csv'
    sizes.write_text('ImageID,ImageWidth,ImageHeight,PredictionString\nff,10,20,\n0a,30,40,\n',
                     encoding='utf-8')
    prepare(data_root, 'test', sizes=sizes)
    index = open_prepared(data_root, 'test')
    assert list(index.image_ids) == ['0a', 'ff']
    assert index.widths.tolist() == [30, 10] and index.heights.tolist() == [40, 20]


def test_second_run_reuses_and_says_so_until_an_input_changes(data_root):
    command = ('tools/prepare_data.py', '--data-root', data_root, '--split', 'validation')
    first = run_tool(*command, '--workers', 1)
    assert first.returncode == 0, first.stderr
    index_path = data_root / 'prepared/validation/index.arrow'
    written = index_path.stat().st_mtime_ns
    assert 'used again' in run_tool(*command).stdout
    assert index_path.stat().st_mtime_ns == written
    labels = table(data_root, 'labels', 'validation')
    labels.write_text(''.join(labels.read_text(encoding='utf-8').splitlines(True)[:-1]),
                      encoding='utf-8')
    assert 'used again' not in run_tool(*command).stdout
    assert index_path.stat().st_mtime_ns != written


def test_missing_output_is_made_again(data_root):
    prepare(data_root, 'validation')
    expected = outputs(data_root, 'validation')
    (data_root / 'prepared/validation/coco.json').unlink()
    assert not prepare(data_root, 'validation').reused
    assert outputs(data_root, 'validation') == expected


def test_image_cut_by_two_bytes_stops_the_run(data_root):
    image_id = read_rows(table(data_root, 'bbox'))[0]['ImageID']
    path = data_root / 'images' / 'train' / f'{image_id}.jpg'
    os.truncate(path, path.stat().st_size - 2)
    with pytest.raises(UserError, match=rf'bbox\.csv, row 2: image {path}: truncated JPEG'):
        prepare(data_root)


def test_upside_down_image_is_noted_and_kept_as_it_is(data_root, prepared_data):
    path = next((data_root / 'images' / 'train').iterdir())
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)
    prepare(data_root)
    report = json.loads((data_root / 'prepared/train/report.json').read_text(encoding='utf-8'))
    found, = report['problems']['rotated_image']['rows']
    assert found['image_id'] == path.stem and 'EXIF orientation 3' in found['message']
    assert outputs(data_root)['index.arrow'] == outputs(prepared_data)['index.arrow']
