"""Which tensors a loader's process sends by value."""

from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
from torch.utils.data import DataLoader, Dataset

from projects.openimages.mm.datasets.sending import send_small_tensors_by_value


class Items(Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        send_small_tensors_by_value()
        return {'labels': torch.arange(3) + number, 'flags': torch.tensor([True, False]),
                'boxes': HorizontalBoxes(torch.full((2, 4), 1.5)), 'none': torch.zeros(0, 4),
                'number': torch.tensor(7), 'halves': torch.ones(2, dtype=torch.bfloat16),
                'columns': torch.arange(6).reshape(2, 3).t(), 'image': torch.ones(3, 200, 200)}


def load(workers):
    return list(DataLoader(Items(), batch_size=None, num_workers=workers))


@pytest.mark.parametrize('workers', [0, 1])
def test_what_arrives_is_what_was_sent(workers):
    for number, item in enumerate(load(workers)):
        expected = Items()[number]
        for name, tensor in expected.items():
            if name == 'boxes':
                tensor, item['boxes'] = tensor.tensor, item['boxes'].tensor
            assert item[name].dtype == tensor.dtype
            assert torch.equal(item[name], tensor)


def test_small_ones_have_no_memory_of_their_own_to_map_and_images_have():
    for item in load(workers=1):
        shared = {name for name, tensor in item.items()
                  if not isinstance(tensor, HorizontalBoxes) and tensor.is_shared()}
        assert shared == {'image', 'halves'}


def test_what_arrives_may_be_changed():
    item = load(workers=1)[1]
    item['labels'] += 1
    assert item['labels'].tolist() == [2, 3, 4]


def test_the_process_that_trains_sends_as_before():
    send_small_tensors_by_value()
    assert Tensor not in ForkingPickler._extra_reducers or (
        ForkingPickler._extra_reducers[Tensor] is reduce_tensor)
