"""The metric in several processes, for its test.

    python -m tests.mm.evaluation.metric_run INDEX OUT N

Images are dealt out in turn and the last are repeated so that all processes have the same number,
as ``DefaultSampler`` does.
"""

import json
import sys

import torch
import torch.multiprocessing
from mmengine.dist import get_rank

from projects.openimages.mm.evaluation.challenge_metric import OpenImagesChallengeMetric
from tests.challenge.random_index import MIDS, detect


def samples(metric, rows):
    """The data samples of these index rows, as an evaluator gets them."""
    for row in rows:
        labels, scores, masks = detect(metric.index, row)
        yield {'image_id': metric.index.image_id(row), 'pred_instances': {
            'labels': torch.tensor(labels), 'scores': torch.tensor(scores),
            'masks': torch.tensor(masks)}}


def evaluate(index, rows, size, **options) -> dict:
    """The metric of these rows in batches of two, ``size`` being the number of images."""
    metric = OpenImagesChallengeMetric(index, **options)
    metric.dataset_meta = {'mids': MIDS}
    batch = list(samples(metric, rows))
    for start in range(0, len(batch), 2):
        metric.process(None, batch[start:start + 2])
    return metric.evaluate(size)


def run_rank(rank, index, out, processes, size, store):
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank,
                                         world_size=processes)
    per_rank = -(-size // processes)
    rows = [(rank + n * processes) % size for n in range(per_rank)]
    metrics = evaluate(index, rows, size, coco_thresholds=True)
    if get_rank() == 0:
        with open(out, 'w') as file:
            json.dump(metrics, file)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    index, out, processes, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.multiprocessing.spawn(run_rank, (index, out, processes, size, out + '.store'),
                                nprocs=processes)
