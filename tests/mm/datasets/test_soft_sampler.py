"""How often images are drawn, and that the draws do not depend on processes or interruptions."""

from itertools import islice

import numpy as np
import pytest

from projects.openimages.common.errors import ConfigError
from projects.openimages.mm.datasets.soft_sampler import SoftClassAwareSampler, class_chances


class Images:
    """900 images of class 0, 90 of class 1, 1 of class 2, none of class 3."""

    def __len__(self):
        return 991

    def get_cat2imgs(self):
        return {0: np.arange(900), 1: np.arange(900, 990), 2: np.array([990]),
                3: np.zeros(0, np.int64)}


def sampler(draws=20_000, rank=0, world_size=1, **options):
    result = SoftClassAwareSampler(Images(), seed=3, **options)
    result.rank, result.world_size = rank, world_size
    result.set_schedule(draws)
    return result


def shares(items):
    return [np.mean(items < 900), np.mean((items >= 900) & (items < 990)), np.mean(items == 990)]


def test_chances_are_powers_of_the_counts():
    assert class_chances(np.array([100, 25, 4]), 0.5, 1).tolist() == pytest.approx(
        [10 / 17, 5 / 17, 2 / 17])
    assert class_chances(np.array([100, 25, 4]), 0, 1).tolist() == pytest.approx([1 / 3] * 3)


def test_what_a_capped_class_does_not_take_goes_to_the_others():
    chances = class_chances(np.array([100, 100, 1]), 0, 0.01)
    assert chances.tolist() == pytest.approx([0.495, 0.495, 0.01])


def test_a_cap_on_one_class_may_push_another_over_its_own():
    chances = class_chances(np.array([1000, 30, 1]), 0, 0.01)
    assert chances.tolist() == pytest.approx([0.69, 0.3, 0.01])


def test_where_all_caps_together_are_too_low_the_datas_frequencies_stand():
    assert class_chances(np.array([3, 1]), 0, 0.1).tolist() == pytest.approx([0.75, 0.25])


def test_no_image_of_a_rare_class_comes_more_often_than_the_limit_in_the_schedule():
    items = np.array(list(islice(sampler(max_repeats=50), 20_000)))
    times = np.bincount(items)
    assert times[990] < 80  # 50 expected
    free = np.bincount(list(islice(sampler(max_repeats=None), 20_000)))
    assert free[990] > 400


def test_the_second_part_of_the_schedule_draws_classes_alike():
    items = np.array(list(islice(sampler(power=1.0, switch_at=0.5, max_repeats=None), 20_000)))
    assert shares(items[:10_000]) == pytest.approx([900 / 991, 90 / 991, 1 / 991], abs=0.02)
    assert shares(items[10_000:]) == pytest.approx([1 / 3] * 3, abs=0.02)


def test_a_class_shows_each_of_its_images_before_any_again():
    items = np.array(list(islice(sampler(), 20_000)))
    times = np.bincount(items, minlength=991)
    assert times[900:990].max() - times[900:990].min() <= 1
    assert times[:900].max() - times[:900].min() <= 1


@pytest.mark.parametrize('world_size', [2, 3])
def test_processes_together_draw_what_one_draws(world_size):
    alone = list(islice(sampler(), 9_000))
    parts = [list(islice(sampler(rank=rank, world_size=world_size), 9_000 // world_size))
             for rank in range(world_size)]
    assert [item for turn in zip(*parts, strict=True) for item in turn] == alone


@pytest.mark.parametrize('skipped', [1, 4095, 4096, 9_001])
def test_a_resumed_run_goes_on_with_the_same_images(skipped):
    whole = list(islice(sampler(rank=1, world_size=2), skipped + 50))
    resumed = sampler(rank=1, world_size=2)
    resumed.skip(skipped)
    assert list(islice(resumed, 50)) == whole[skipped:]


def test_another_seed_draws_other_images():
    other = SoftClassAwareSampler(Images(), seed=4)
    other.set_schedule(20_000)
    assert list(islice(other, 20)) != list(islice(sampler(), 20))


def test_without_the_schedules_length_nothing_is_drawn():
    with pytest.raises(ConfigError, match='ResumableTrainLoop'):
        next(iter(SoftClassAwareSampler(Images(), seed=3)))


@pytest.mark.parametrize(('name', 'value'), [('power', -0.1), ('power_after', 2),
                                             ('switch_at', 1.5), ('max_repeats', 0)])
def test_wrong_options_are_refused_with_their_names(name, value):
    with pytest.raises(ValueError, match=name):
        SoftClassAwareSampler(Images(), **{name: value})
