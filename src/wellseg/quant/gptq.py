"""Rounds weights by GPTQ, which minimises the error of a layer's outputs (Frantar et al. 2023, arXiv:2210.17323).

The weights of one input are rounded together, input after input; the resulting error of the output is compensated by the
weights that are not rounded yet, according to the second moments of the layer's inputs. Axes: see wellseg.quant.columns.
"""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wellseg.quant.columns import Convolution, columns, to_matrix

_BLOCK = 128
"""Columns whose errors are propagated to all later ones in one product; affects speed alone."""


class _Recorded(Exception):
    """Stops a forward pass once the layer's inputs are recorded: the rest of the network need not run."""


@torch.no_grad()
def input_moments(network: nn.Module, convolution: Convolution, inputs: Sequence[Tensor]) -> Tensor:
    """Returns the mean second moments (G, K, K) float64 of the inputs of `convolution`, a module of `network`.

    All zeros where the network never runs the module; of several runs in one pass the first counts.
    """
    matrix = to_matrix(convolution, convolution.weight)
    total = torch.zeros(len(matrix), *[matrix.shape[2]] * 2, dtype=torch.float64, device=matrix.device)

    def record(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        for piece in columns(convolution, arguments[0].float()):
            total.add_(piece @ piece.transpose(1, 2))
        raise _Recorded

    handle = convolution.register_forward_pre_hook(record)
    try:
        for batch in inputs:
            with contextlib.suppress(_Recorded):
                network(batch)
    finally:
        handle.remove()
    return total / sum(len(batch) for batch in inputs)


def round_columns(
    weight: Tensor,
    moments: Tensor,
    scale: Tensor,
    zero: Tensor,
    low: int,
    high: int,
    *,
    damping: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Returns codes int32 and compensated weights float32, both (G, R, K), that preserve weight @ inputs.

    weight, scale, zero  (G, R, K), one grid per weight: the values (code - zero) * scale, low <= code <= high
    moments              (G, K, K) second moments of the inputs
    damping              added to the diagonal, relative to its mean: fewer observations of the inputs need more

    The input with the largest power comes first, while most other weights can still compensate for its error.
    """
    work, codes, compensated = weight.double().clone(), torch.empty_like(weight), torch.empty_like(weight).double()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True)
    damped = moments + torch.diag_embed((damping * mean + (mean == 0)).expand_as(diagonal))
    order = diagonal.argsort(dim=1, descending=True, stable=True)
    across = order[:, None].expand_as(work)
    work, scale, zero = (t.double().gather(2, across) for t in (work, scale, zero))
    damped = damped.gather(1, order[:, :, None].expand_as(damped)).gather(2, order[:, None].expand_as(damped))
    # Row k of the upper factor of the inverse distributes the error of column k over the columns after it.
    spread = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    for start in range(0, work.shape[2], _BLOCK):
        stop = min(start + _BLOCK, work.shape[2])
        errors = torch.empty_like(work[:, :, start:stop])
        for k in range(start, stop):
            column, step = work[:, :, k], scale[:, :, k]
            code = (column / step + zero[:, :, k]).round().clamp(low, high)
            compensated[:, :, k], codes[:, :, k] = column, code
            error = (column - (code - zero[:, :, k]) * step) / spread[:, k, k, None]
            work[:, :, k + 1 : stop] -= error[:, :, None] * spread[:, None, k, k + 1 : stop]
            errors[:, :, k - start] = error
        work[:, :, stop:] -= errors @ spread[:, start:stop, stop:]
    back = torch.empty_like(across).scatter_(
        2, across, torch.arange(work.shape[2], device=work.device).expand_as(across)
    )
    return codes.gather(2, back).int(), compensated.gather(2, back).float()
