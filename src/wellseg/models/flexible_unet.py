"""MONAI's FlexibleUNet with a ResNet-18 encoder: a peer to measure against, and a network for pictures (axes: see
wellseg.types).
"""

from functools import partial
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wellseg.errors import ArtifactError
from wellseg.models.base import SegmentationNetwork
from wellseg.models.cylinder import decimate
from wellseg.models.peers import in_size, monai_class

BACKBONE = "resnet18"


class FlexibleUNet(SegmentationNetwork):
    """(B, in_channels, H, W) float -> logits (B, out_channels, H, W), any H, W >= 1.

    MONAI's FlexibleUNet with MONAI's defaults: batch normalisation, ReLU, nearest up-sampling, decoder channels 256,
    128, 64, 32, 16; 13.5 million parameters. Its skips only fit at multiples of 32, so the edges are repeated outwards to
    the next one, evenly on both sides (36 x 36 becomes 64 x 64); to 64 at least, which leaves the coarsest scale more than
    one pixel to normalise.

    weights            file of encoder weights to begin with, safetensors or a state_dict of torch (of plain tensors;
                       nothing in it is unpickled), under the names and shapes of MONAI's ResNet-18, all of them; null
                       begins at random. That encoder has no convolutions in its shortcuts, so torchvision's weights do
                       not fit. The weights of an artefact replace them: the file is not needed then
    shortcut_gradient  whether training goes back through the three shortcuts that halve the size, as in He et al. 2016;
                       MONAI stops it there

    Raises EnvironmentFault where MONAI is not installed, ArtifactError where `weights` cannot be used.
    """

    any_height = False
    """The padding depends on the height, and with it the place of every row among the samples of each scale."""
    total_stride = (32, 32)

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        weights: str | None = None,
        shortcut_gradient: bool = False,
    ) -> None:
        super().__init__()
        self.network = monai_class("FlexibleUNet")(in_channels, out_channels, BACKBONE, pretrained=False)
        for block in self.network.encoder.modules():
            if isinstance(shortcut := getattr(block, "downsample", None), partial):
                block.downsample = Shortcut(shortcut.keywords["planes"], shortcut.keywords["stride"], shortcut_gradient)
        # On the meta device the network is built for an artefact, whose own weights come next.
        if weights is not None and not next(self.parameters()).is_meta:
            load_encoder(self.network.encoder, Path(weights).expanduser())

    def forward(self, x: Tensor) -> Tensor:
        return in_size(self.network, x, multiple=self.total_stride[0], least=2 * self.total_stride[0])


class Shortcut(nn.Module):
    """(B, C, H, W) -> (B, planes, ceil(H / stride), ceil(W / stride)): every `stride`-th pixel, and channels of zeros.

    What MONAI's function does, without the batch size of the moment in an exported graph.
    """

    def __init__(self, planes: int, stride: int, gradient: bool) -> None:
        super().__init__()
        self.planes, self.stride, self.gradient = planes, stride, gradient

    def forward(self, x: Tensor) -> Tensor:
        x = decimate(x, (self.stride, self.stride))
        return F.pad(x if self.gradient else x.detach(), (0, 0, 0, 0, 0, self.planes - x.shape[1]))


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Fill `encoder` from a file of weights; all of them or none. Raises ArtifactError."""
    if not path.is_file():
        raise ArtifactError("no such file of encoder weights", where=str(path), fix="check model.weights")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the readers raise what they like
        raise ArtifactError(
            f"{path.name} is not a file of weights",
            where=str(path),
            why=str(error).splitlines()[0],
            fix="safetensors, or torch.save(encoder.state_dict(), PATH); nothing in the file was executed",
        ) from error
    wanted = encoder.state_dict()
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArtifactError(f"{path.name} is not a state_dict of tensors", where=str(path))
    wrong = [f"{k}: missing" for k in wanted if k not in state]
    wrong += [f"{k}: not part of the encoder" for k in state if k not in wanted]
    for key in wanted.keys() & state.keys():
        if wanted[key].shape != state[key].shape:
            wrong.append(f"{key}: expected {tuple(wanted[key].shape)}, file has {tuple(state[key].shape)}")
        elif not torch.isfinite(state[key]).all():
            wrong.append(f"{key}: holds NaN or infinity")
    if wrong:
        more = [f"... and {len(wrong) - 10} more"] if len(wrong) > 10 else []
        raise ArtifactError(
            "the weights do not fit MONAI's ResNet-18", where=str(path), why="\n".join(sorted(wrong)[:10] + more)
        )
    encoder.load_state_dict(state, strict=True)


ARCHITECTURE = FlexibleUNet
