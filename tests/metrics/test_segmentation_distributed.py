"""The same scores from two processes as from one, over gloo."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from wellseg.metrics.classes import ClassScores
from wellseg.metrics.segmentation import SegmentationScores
from wellseg.types import IGNORE


def split(kind):
    g = torch.Generator().manual_seed(0)
    target = (torch.rand(7, 6, 5, generator=g) < 0.3).to(torch.uint8)
    target[0, :3] = IGNORE
    probability = torch.rand(7, 6, 5, generator=g)
    if kind is ClassScores:
        probability = torch.stack([probability, 1 - probability, torch.full_like(probability, 0.4)], dim=1)
    return probability, target, torch.arange(7), torch.arange(7) % 2


def results(metric) -> dict:
    """Numbers to the last bit; hex, so that NaN is equal to NaN."""
    wells = metric.per_well(["a", "b"])
    return {
        "compute": {name: value.item().hex() for name, value in metric.compute().items()},
        "per_well": {w: {name: float(value).hex() for name, value in scores.items()} for w, scores in wells.items()},
        "confusion": metric.confusion(),
        "best": metric.best_threshold(),
        "curve": {name: values.tolist() for name, values in metric.curve().items()},
    }


def process(rank: int, shares: list[list[int]], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=len(shares))
    try:
        found = []
        for kind in (SegmentationScores, ClassScores):
            for share in shares, [[*range(7)], []]:  # in the second round the other process sees no image
                metric = kind()
                if share[rank]:
                    for part in torch.tensor(share[rank]).split(2):
                        metric.update(*(column[part] for column in split(kind)))
                else:
                    metric._update_count = 1  # as after a loop over an empty loader; it only silences a warning
                found += [results(metric), results(metric)]  # twice: gathering must leave the local state as it was
        torch.save(found, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_change_no_bit(tmp_path):
    """Unequal shares, and image 0 on both, as a distributed sampler pads them."""
    mp.spawn(process, args=([[0, 2, 4, 6], [5, 3, 1, 0, 0]], str(tmp_path)), nprocs=2)
    expected = []
    for kind in (SegmentationScores, ClassScores):
        alone = kind()
        alone.update(*split(kind))
        expected += [results(alone)] * 4
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == expected
