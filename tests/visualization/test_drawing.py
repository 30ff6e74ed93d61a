"""What is drawn over a picture: where, in which colour, and how boxes are told apart."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from projects.openimages.masks import rle_from_mask
from projects.openimages.visualization import drawing
from projects.openimages.visualization.drawing import (
    MOST_DRAWN,
    Instances,
    add_caption,
    class_colour,
    draw_comparison,
    draw_instances,
    fit_text,
    font,
)

NAMES = ['Cup', 'Dög, domestic', 'A name that is much too long for a picture of this size']
GREY = np.full((100, 150, 3), 128, np.uint8)


def _square_mask() -> dict:
    mask = np.zeros((100, 150), dtype=bool)
    mask[40:80, 30:90] = True
    return rle_from_mask(mask)


def _drawn(instances: Instances, max_side: int = 300) -> np.ndarray:
    return np.asarray(draw_instances(GREY, instances, NAMES, max_side=max_side)).astype(int)


def _changed(pixels: np.ndarray) -> np.ndarray:
    return np.abs(pixels - 128).max(axis=2) > 2


def test_without_instances_the_picture_is_only_scaled():
    pixels = _drawn(Instances(labels=[], boxes=[]))
    assert pixels.shape == (200, 300, 3)
    assert not _changed(pixels).any()


@pytest.mark.parametrize(('size', 'max_side', 'expected'), [
    ((1024, 768), 512, (512, 384)),
    ((768, 1024), 512, (384, 512)),
    ((100, 50), 512, (200, 100)),  # enlarged no more than twice
    ((1000, 1), 100, (100, 1)),
])
def test_the_longer_side_is_what_was_asked_for(size, max_side, expected):
    drawn = draw_instances(Image.new('RGB', size), Instances([], []), NAMES, max_side=max_side)
    assert drawn.size == expected


def test_a_mask_tints_its_own_pixels_with_the_colour_of_its_class():
    pixels = _drawn(Instances([0], [[30, 40, 90, 80]], [_square_mask()]))
    colour = np.array(class_colour(0))
    inside = pixels[120, 120]  # (60, 60) of the picture
    assert np.abs(inside - 128).max() > 15
    assert np.all(np.sign(inside - 128) == np.sign(colour - 128))
    assert not _changed(pixels)[180:, :].any()
    assert not _changed(pixels)[:, 200:].any()


def test_a_box_with_a_mask_is_solid_and_one_without_is_dashed():
    solid = _drawn(Instances([0], [[30, 40, 90, 80]], [_square_mask()]))
    dashed = _drawn(Instances([0], [[30, 40, 90, 80]], [None]))
    colour = np.array(class_colour(0))

    def on_right_edge(pixels):
        return (np.abs(pixels[85:155, 176:182] - colour).max(axis=2) < 8).any(axis=1).mean()

    assert on_right_edge(solid) == 1
    assert 0.4 < on_right_edge(dashed) < 0.8
    assert not _changed(dashed)[120, 100:140].any()  # nothing is filled without a mask


def test_a_group_of_box_is_hatched():
    pixels = _drawn(Instances([0], [[30, 40, 90, 80]], [None], group_of=[True]))
    inside = _changed(pixels)[100:150, 70:170]
    assert 0.1 < inside.mean() < 0.6


@pytest.mark.parametrize('corner', [[-20, -20, 10, 10], [140, -5, 170, 10], [-9, 90, 4, 130],
                                    [145, 95, 160, 120]])
def test_names_at_the_border_are_whole(corner):
    def plate(box):
        return (_drawn(Instances([0], [box])) == class_colour(0)).all(axis=2).sum()

    assert plate(corner) > 0.8 * plate([70, 50, 80, 60])


def test_a_name_wider_than_the_picture_is_cut():
    drawn = draw_instances(GREY, Instances([2], [[0, 50, 9, 60]]), NAMES, max_side=150)
    assert drawn.size == (150, 100)


def test_names_of_neighbours_do_not_cover_each_other():
    one = _drawn(Instances([0], [[50, 50, 90, 80]]))
    two = _drawn(Instances([0, 0], [[50, 50, 90, 80], [50, 50, 90, 80]]))
    colour = np.array(class_colour(0))
    plate = [(np.abs(pixels - colour).max(axis=2) == 0).sum() for pixels in (one, two)]
    assert plate[1] > 1.4 * plate[0]


def test_a_class_has_one_colour_and_neighbours_have_others():
    assert class_colour(17) == class_colour(17)
    assert len({class_colour(i) for i in range(300)}) == 300
    for i in range(299):
        assert np.abs(np.subtract(class_colour(i), class_colour(i + 1))).max() > 40


def test_accented_greek_and_cyrillic_letters_have_glyphs():
    missing = bytes(font().getmask('\uffff'))
    for letter in 'éüňšøßΩжł✓✗':
        assert bytes(font().getmask(letter)) != missing


def test_text_that_does_not_fit_ends_in_an_ellipsis():
    assert fit_text('short', font(), 500) == 'short'
    cut = fit_text('a very long name indeed', font(), 60)
    assert cut.endswith('…') and font().getlength(cut) <= 60


def test_caption_is_added_below():
    picture = add_caption(Image.new('RGB', (200, 100)), 'x' * 100)
    assert picture.width == 200 and picture.height > 110


def test_comparison_shows_both_and_drops_doubtful_predictions():
    truth = Instances([0], [[30, 40, 90, 80]], [_square_mask()])
    sure = Instances([0], [[30, 40, 90, 80]], [_square_mask()], scores=[0.9])
    doubtful = Instances([0], [[30, 40, 90, 80]], [_square_mask()], scores=[0.1])
    shown, hidden = (np.asarray(draw_comparison(GREY, truth, predictions, NAMES, max_side=300,
                                                score_thr=0.3))
                     for predictions in (sure, doubtful))
    half = shown.shape[1] // 2
    np.testing.assert_array_equal(shown[:, :half], hidden[:, :half])
    assert (shown[30:, half + 5:] != hidden[30:, half + 5:]).any()
    empty = np.asarray(draw_comparison(GREY, truth, Instances([], []), NAMES, max_side=300))
    np.testing.assert_array_equal(empty[30:, half + 5:], hidden[30:, half + 5:])


def test_of_many_predictions_the_most_confident_are_drawn():
    """One column each, the scores rising to the right; the left ones are too many."""
    number = MOST_DRAWN + 10
    boxes = [[5 * n, 50, 5 * n + 4, 90] for n in range(number)]
    many = Instances([0] * number, boxes, scores=np.linspace(0.5, 0.9, number))
    best = many.best(MOST_DRAWN)
    assert list(best.scores) == list(many.scores[10:])
    assert many.best(number) is many and Instances([0], boxes[:1]).best(0).scores is None
    drawn, expected, all_of_them = (
        np.asarray(draw_comparison(GREY, None, shown, NAMES, max_side=300))[40:]
        for shown in (many, best, best.best(5)))
    assert np.array_equal(drawn, expected) and not np.array_equal(drawn, all_of_them)


def test_heading_says_how_many_predictions_are_not_drawn(monkeypatch):
    headings = []
    monkeypatch.setattr(drawing, 'fit_text', lambda text, *_: headings.append(text) or text)
    for number in (MOST_DRAWN, MOST_DRAWN + 1):
        shown = Instances([0] * number, [[0, 0, 9, 9]] * number, scores=[0.5] * number)
        draw_comparison(GREY, None, shown, NAMES)
    told = [text for text in headings if text.startswith('predictions')]
    assert told == [f'predictions ({MOST_DRAWN} of score ≥ 0.3)',
                    f'predictions ({MOST_DRAWN} best of {MOST_DRAWN + 1} of score ≥ 0.3)']


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match='2 labels, but 1 boxes'):
        Instances([0, 1], [[0, 0, 1, 1]])


def test_arrays_and_lists_draw_the_same():
    lists = Instances([1], [[30, 40, 90, 80]], [_square_mask()], [0.5], [False])
    arrays = Instances(np.array([1]), np.array([[30, 40, 90, 80]], np.float32), [_square_mask()],
                       np.array([0.5], np.float32), np.array([False]))
    np.testing.assert_array_equal(_drawn(lists), _drawn(arrays))


def test_comparison_without_ground_truth_does_not_claim_that_nothing_is_there():
    nothing = Instances([], [])
    unknown, none = (np.asarray(draw_comparison(GREY, truth, nothing, NAMES, max_side=300))
                     for truth in (None, nothing))
    half = none.shape[1] // 2
    assert (none[:24, :half] != 250).any()
    assert len(np.unique(unknown[:24, :half].reshape(-1, 3), axis=0)) == 1  # no heading
