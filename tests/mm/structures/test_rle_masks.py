"""``RleMasks`` beside ``BitmapMasks``: the same pixels, boxes and areas after any operations."""

import copy
import pickle

import mmcv
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BaseInstanceMasks, BitmapMasks
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from projects.openimages.masks import MaskError
from projects.openimages.mm.structures.rle_masks import RleMasks
from tests.mm.structures.random_masks import SIDES, masks_of_one_size, random_masks

FLAGS = ('group_of', 'has_mask', 'ignore')


def both(pixels):
    return BitmapMasks(pixels, *pixels.shape[1:]), RleMasks(pixels, *pixels.shape[1:])


def encoded(pixels):
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]


def assert_same(stock: BitmapMasks, ours: RleMasks) -> None:
    assert type(ours) is RleMasks and len(ours) == len(stock)
    assert (ours.height, ours.width) == (stock.height, stock.width)
    pixels = stock.to_ndarray().astype(np.uint8)
    assert np.array_equal(ours.to_ndarray(), pixels)
    assert ours.areas.tolist() == stock.areas.tolist()
    assert torch.equal(ours.get_bboxes().tensor, stock.get_bboxes('hbox').tensor)
    assert ours.rles == encoded(pixels)


def draw_exact(draw, height: int, width: int) -> tuple[str, tuple]:
    """An operation that keeps pixels apart, as the methods' name and arguments."""
    name = draw(st.sampled_from(['flip', 'resize', 'rescale', 'pad', 'crop', 'expand', 'translate',
                                 '__getitem__']))
    if name == 'flip':
        return name, (draw(st.sampled_from(['horizontal', 'vertical', 'diagonal'])),)
    if name == 'rescale':
        scale = draw(st.one_of(st.floats(0.5, 2), st.tuples(SIDES, SIDES)))
        assume(min(mmcv.rescale_size((width, height), scale)) > 0)
        return name, (scale,)
    if name == 'pad':
        return name, ((height + draw(st.integers(0, 9)), width + draw(st.integers(0, 9))),)
    if name == 'crop':
        left, top = draw(st.integers(-5, width - 1)), draw(st.integers(-5, height - 1))
        right, bottom = left + draw(st.integers(0, 50)), top + draw(st.integers(0, 50))
        return name, (np.array([left, top, right, bottom]),)
    if name == 'expand':
        top, left, below, right = (draw(st.integers(0, 9)) for _ in range(4))
        return name, (height + top + below, width + left + right, top, left)
    if name == 'translate':
        offset = draw(st.integers(-45, 45))
        direction = draw(st.sampled_from(['horizontal', 'vertical', 'both']))
        if direction == 'both':
            offset = (offset, draw(st.integers(-45, 45)))
        return name, ((draw(SIDES), draw(SIDES)), offset, direction)
    if name == '__getitem__':
        return name, (slice(draw(st.integers(0, 2)), None, draw(st.integers(1, 2))),)
    return name, ((draw(SIDES), draw(SIDES)),)


def draw_mixing(draw, height: int, width: int) -> tuple[str, tuple]:
    """An operation that interpolates or fills."""
    name = draw(st.sampled_from(['rotate', 'shear', 'translate', 'resize', 'pad']))
    if name == 'rotate':
        return name, ((height, width), draw(st.floats(-180, 180)))
    if name == 'shear':
        direction = draw(st.sampled_from(['horizontal', 'vertical']))
        return name, ((height, width), draw(st.floats(-1, 1)), direction)
    if name == 'translate':
        return name, ((height, width), draw(st.floats(-9, 9)), 'horizontal',
                      draw(st.integers(0, 1)))
    if name == 'resize':
        return name, ((draw(SIDES), draw(SIDES)), 'bilinear')
    return name, ((height + 3, width + 2), 1)


@given(masks_of_one_size(most=6), st.data())
def test_exact_operations_one_after_the_other_give_the_stock_pixels(pixels, data):
    stock, ours = both(pixels)
    for _ in range(data.draw(st.integers(1, 5))):
        name, arguments = draw_exact(data.draw, stock.height, stock.width)
        stock, ours = getattr(stock, name)(*arguments), getattr(ours, name)(*arguments)
        assert_same(stock, ours)


@given(masks_of_one_size(least=1), st.data())
def test_operations_that_mix_pixels_give_the_stock_pixels_of_each_instance(pixels, data):
    name, arguments = draw_mixing(data.draw, *pixels.shape[1:])
    stock, ours = both(pixels)
    alone = [getattr(stock[n], name)(*arguments) for n in range(len(stock))]
    assert_same(BitmapMasks.cat(alone), getattr(ours, name)(*arguments))


@pytest.mark.parametrize('arguments', [
    ((10, 12), -5), ((10, 12), -5, 'vertical'), ((25, 12), (7, -3), 'both'), ((20, 30), 4.),
    ((20, 30), 4, 'horizontal', 1), ((20, 30), 2.5, 'vertical'), ((20, 30), (1, 2.5), 'both')])
def test_translation_cuts_before_and_fills_behind(arguments):
    stock, ours = both(random_masks(1, 3, 20, 30))
    assert_same(stock.translate(*arguments), ours.translate(*arguments))


@pytest.mark.parametrize('count', [1, 2, 3, 5, 8])
@pytest.mark.parametrize(('name', 'argument'), [('rotate', 17), ('rotate', -140), ('shear', 0.3)])
def test_masks_turned_together_differ_at_borders_only(count, name, argument):
    """OpenCV rounds otherwise where there are 2, or more than 4."""
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([np.hypot(y - 150, x - 150 - 9 * n) < 60 + n for n in range(count)])
    stock, ours = (getattr(masks, name)((300, 400), argument)
                   for masks in both(pixels.astype(np.uint8)))
    differing = stock.masks != ours.masks
    assert differing.sum() < 0.003 * stock.masks.sum()
    inner = ours.masks.astype(bool)
    for axis in (1, 2):
        inner = inner & np.roll(inner, 1, axis) & np.roll(inner, -1, axis)
    assert not differing[inner].any()


@pytest.mark.parametrize(('old', 'new'), [((768, 1024), (800, 1067)), ((683, 1024), (800, 1199)),
                                          ((1024, 768), (333, 250)), ((300, 500), (1700, 2833))])
def test_scaling_of_common_sizes_takes_the_same_pixels(old, new):
    stock, ours = both(random_masks(3, 2, *old))
    assert_same(stock.resize(new), ours.resize(new))
    assert_same(stock.rescale((1333, 800)), ours.rescale((1333, 800)))


@given(masks_of_one_size(least=1), st.data())
def test_indexing_as_stock(pixels, data):
    count = len(pixels)
    numbers = st.lists(st.integers(-count, count - 1))
    index = data.draw(st.one_of(
        st.integers(-count, count - 1), numbers, numbers.map(lambda x: np.array(x, int)),
        st.lists(st.booleans(), min_size=count, max_size=count).map(np.array),
        st.just(slice(None, None, 2))))
    stock, ours = both(pixels)
    assert_same(stock[index], ours[index])
    if isinstance(index, np.ndarray):
        assert_same(stock[index], ours[torch.from_numpy(index)])
    for mask, expected in zip(ours, stock, strict=True):
        assert np.array_equal(mask, expected)


def test_index_beyond_the_end_is_an_error():
    with pytest.raises(IndexError):
        RleMasks.random(2)[2]


@given(masks_of_one_size(), st.integers(0, 2**32 - 1))
def test_cat_as_stock(pixels, seed):
    more = random_masks(seed, 2, *pixels.shape[1:])
    (stock, ours), (other, others) = both(pixels), both(more)
    assert_same(BitmapMasks.cat([stock, other]), RleMasks.cat([ours, others]))
    assert_same(BitmapMasks.cat([stock]), ours.cat([ours]))
    whole = BitmapMasks.cat([stock, others])  # MMDetection's own takes ours for bitmaps
    assert np.array_equal(whole.masks, np.concatenate([pixels, more]))


def test_cat_of_different_sizes_is_an_error():
    with pytest.raises(ValueError, match='one image size'):
        RleMasks.cat([RleMasks.random(1, 3, 4), RleMasks.random(1, 4, 3)])


def test_operations_leave_the_masks_they_start_from_as_they_were():
    pixels = random_masks(0, 4, 20, 30)
    ours = RleMasks(pixels, 20, 30, ignore=[True, False, False, True])
    ours.resize((40, 60)), ours.flip(), ours.crop(np.array([3, 3, 9, 9])), ours.pad((50, 50))
    ours[1:], ours.translate((20, 30), 5), ours.without(ours), ours.cat([ours, ours])
    assert_same(BitmapMasks(pixels, 20, 30), ours)
    assert ours.ignore.tolist() == [True, False, False, True]


def test_it_is_a_bitmap_masks_that_is_made_when_asked_for():
    pixels = random_masks(5, 3, 6, 7)
    ours = RleMasks(pixels, 6, 7)
    assert isinstance(ours, BitmapMasks) and isinstance(ours, BaseInstanceMasks)
    assert repr(ours) == 'RleMasks(num_masks=3, height=6, width=7)'
    assert ours.masks is not ours.masks
    assert np.array_equal(ours.masks, pixels) and ours.masks.dtype == np.uint8
    tensor = ours.to_tensor(torch.float32, 'cpu')
    assert tensor.dtype == torch.float32 and np.array_equal(tensor.numpy(), pixels)
    assert torch.equal(HorizontalBoxes.from_instance_masks(ours).tensor, ours.get_bboxes().tensor)
    assert len(RleMasks([], 6, 7)) == 0 and RleMasks([], 6, 7).masks.shape == (0, 6, 7)
    assert np.array_equal(RleMasks(list(pixels), 6, 7).masks, pixels)


def test_writing_into_pixels_that_are_not_kept_is_an_error():
    ours = RleMasks.random(2, 6, 7)
    with pytest.raises(ValueError, match='read-only'):
        ours.masks[:, 2:4] = 0
    new = random_masks(1, 2, 6, 7)
    ours.masks = new
    assert np.array_equal(ours.masks, new)
    with pytest.raises(ValueError, match='shape'):
        ours.masks = new[:1]


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_hold_the_same(copied):
    pixels = random_masks(5, 3, 16, 17)
    ours = RleMasks(pixels, 16, 17, group_of=[True, False, True])
    assert_same(BitmapMasks(pixels, 16, 17), copied(ours))
    assert copied(ours).group_of.tolist() == [True, False, True]


def test_a_pickle_is_small():
    """Twelve discs of 400 columns each: six bytes a column, and the image is no larger."""
    y, x = np.mgrid[:800, :1067]
    discs = np.stack([np.hypot(y - 400, x - n) < 200 for n in range(200, 800, 50)])
    assert len(pickle.dumps(RleMasks(discs, 800, 1067))) < 6.3 * 12 * 400


def test_a_pickle_of_a_very_long_image_is_whole():
    ours = RleMasks.from_boxes([[69_990, 0, 70_000, 1]], 1, 70_000)
    copied = pickle.loads(pickle.dumps(ours))
    assert copied.get_bboxes().tensor.tolist() == [[69_990, 0, 70_000, 1]]
    assert copied.rles == ours.rles and copied.flip().areas.tolist() == [10]


def test_sizes_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match='cannot pad'):
        RleMasks.random(1, 6, 7).pad((5, 7))
    with pytest.raises(ValueError, match='one image size'):
        RleMasks.random(1, 6, 7).without(RleMasks.random(1, 6, 8))
    with pytest.raises(TypeError):
        RleMasks.random(1, 6, 7).crop(np.array([0., 0.5, 2., 2.]))


@given(masks_of_one_size(), st.data())
def test_flags_stay_with_their_instances(pixels, data):
    """Each instance carries its own number in its three flags, through every operation."""
    count = len(pixels)
    bits = np.arange(count)[:, None] >> np.arange(3) & 1 > 0
    flags = dict(zip(FLAGS, bits.T, strict=True))
    ours = RleMasks(pixels, *pixels.shape[1:], **flags)
    for _ in range(3):
        draw_one = data.draw(st.sampled_from([draw_exact, draw_mixing]))
        name, arguments = draw_one(data.draw, ours.height, ours.width)
        flags = {key: value[arguments[0]] if name == '__getitem__' else value
                 for key, value in flags.items()}
        ours = getattr(ours, name)(*arguments)
    for name in FLAGS:
        assert getattr(ours, name).tolist() == flags[name].tolist(), name
        twice = np.concatenate([flags[name], flags[name]]).tolist()
        assert getattr(ours.cat([ours, ours]), name).tolist() == twice
        assert getattr(ours.without(ours), name).tolist() == flags[name].tolist()
    assert not ours[~ours.has_mask].to_ndarray().any()


def test_flags_have_defaults_and_must_fit():
    ours = RleMasks.random(2, 6, 7)
    for name, default in zip(FLAGS, (False, True, False), strict=True):
        assert getattr(ours, name).tolist() == [default] * 2
    with pytest.raises(ValueError, match='ignore'):
        RleMasks(np.zeros((2, 3, 3)), 3, 3, ignore=[True])
    with pytest.raises(TypeError, match='ignored'):
        RleMasks(np.zeros((2, 3, 3)), 3, 3, ignored=[True, False])


def box_and_square() -> RleMasks:
    """A 20 x 30 image of two instances: a square of 4 pixels, and a box without a mask."""
    square = np.zeros((2, 20, 30), np.uint8)
    square[0, 5:7, 5:7] = 1
    return RleMasks.from_rles(encoded(square), 20, 30, boxes=[[5, 5, 7, 7], [10.2, 3, 20, 12.5]])


def test_an_instance_without_a_mask_has_a_box_and_no_pixels():
    ours = box_and_square()
    assert ours.has_mask.tolist() == [True, False]
    assert ours.get_bboxes().tensor.tolist() == [[5, 5, 7, 7], [10, 3, 20, 13]]
    assert ours.areas.tolist() == [4, 0] and ours.masks.sum((1, 2)).tolist() == [4, 0]
    assert ours.rles == encoded(ours.masks) and not ours.cpu()[1].any()
    boxes = np.array([[10., 3., 20., 12.]], np.float32)
    assert not ours.crop_and_resize(boxes, (28, 28), np.array([1])).masks.any()


def test_the_box_of_an_instance_without_a_mask_follows():
    ours = box_and_square().flip('horizontal').crop(np.array([5, 5, 25, 20])).resize((30, 40))
    assert ours.get_bboxes().tensor[1].tolist() == [10, 0, 30, 16]
    assert ours.areas.tolist() == [16, 0]
    turned = box_and_square().rotate((20, 30), 180)
    assert turned.get_bboxes().tensor[1].tolist() == [10, 7, 20, 17]


def test_other_masks_cover_masks_and_leave_boxes():
    left_half = np.zeros((1, 20, 30), np.uint8)
    left_half[:, :, :6] = 1
    ours = box_and_square().without(RleMasks(left_half, 20, 30))
    assert ours.get_bboxes().tensor.tolist() == [[6, 5, 7, 7], [10, 3, 20, 13]]
    ours = box_and_square().without(RleMasks(np.ones((1, 20, 30)), 20, 30))
    assert ours.get_bboxes().tensor.tolist() == [[0, 0, 0, 0], [10, 3, 20, 13]]
    nothing = RleMasks(np.ones((1, 20, 30)), 20, 30, has_mask=[False])
    assert box_and_square().without(nothing).areas.tolist() == [4, 0]


def test_new_pixels_leave_boxes():
    ours = box_and_square()
    ours.masks = np.zeros((2, 20, 30), np.uint8)
    assert ours.get_bboxes().tensor.tolist() == [[0, 0, 0, 0], [10, 3, 20, 13]]


def test_rle_is_handed_on_and_decoded_when_needed():
    pixels = random_masks(11, 5, 12, 13)
    rles = encoded(pixels)
    ours = RleMasks.from_rles(rles, 12, 13)
    assert all(left is right for left, right in zip(ours[1:].rles, rles[1:], strict=True))
    joined = ours.cat([ours[:2], ours[2:]])
    assert all(left is right for left, right in zip(joined.rles, rles, strict=True))
    assert_same(BitmapMasks(pixels, 12, 13), joined)
    hidden = RleMasks.from_rles(rles, 12, 13, has_mask=[False] * 5)
    assert hidden.rles == encoded(np.zeros_like(pixels))


def test_malformed_rle_is_an_error_where_it_is_decoded():
    bad = RleMasks.from_rles([{'size': [3, 2], 'counts': b'7'}], 3, 2)
    with pytest.raises(MaskError):
        bad.flip()
    with pytest.raises(MaskError):
        RleMasks.from_rles([{'size': [3, 2], 'counts': b'7'}], 3, 2, boxes=[[0, 0, 1, 1]])


def test_instance_data_holds_indexes_and_joins_it():
    pixels = random_masks(11, 5, 12, 13)
    data = InstanceData(masks=RleMasks(pixels, 12, 13, ignore=[1, 0, 0, 1, 1]),
                        scores=torch.arange(5))
    for index in (data.scores > 2, torch.tensor([4, 0]), np.array([2, 2]), 3, slice(1, 3),
                  torch.zeros(5, dtype=torch.bool)):
        some = data[index].masks
        expected = np.atleast_3d(pixels[index]).reshape(-1, 12, 13)
        assert np.array_equal(some.to_ndarray(), expected)
        assert some.ignore.tolist() == np.atleast_1d(data.masks.ignore[index]).tolist()
    for moved in (data.to('cpu'), data.cpu(), data.detach(), data.numpy(), data.to_tensor()):
        assert_same(BitmapMasks(pixels, 12, 13), moved.masks)
    assert len(InstanceData.cat([data, data]).masks) == 10
