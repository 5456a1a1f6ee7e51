"""Wraps MONAI's FlexibleUNet with a ResNet-18 encoder (axes: see wellseg.types)."""

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
    """Maps (B, in_channels, H, W) float to logits (B, out_channels, H, W), any H, W >= 1.

    A network for comparison and for planar images: MONAI's FlexibleUNet with MONAI's defaults: batch normalization, ReLU,
    nearest up-sampling, decoder channels 256, 128, 64, 32, 16; 13.5 million parameters. Skips fit only at multiples of 32,
    so the edges are repeated to the next multiple, evenly on both sides (36 x 36 becomes 64 x 64), and to at least 64, so
    that the coarsest scale has more than one pixel for normalization.

    weights            file of initial encoder weights, safetensors or a state_dict of torch (of plain tensors; nothing in
                       it is unpickled), with all names and shapes of MONAI's ResNet-18; null initialises at random. This
                       encoder has no convolutions in its shortcuts, so torchvision's weights do not fit. A model file has
                       weights of its own and does not need this file
    shortcut_gradient  propagates gradients through the three shortcuts that halve the size, as in He et al. 2016; MONAI
                       does not

    Raises EnvironmentFault where MONAI is not installed, ArtifactError where `weights` cannot be used.
    """

    any_height = False
    """The padding depends on the height, and with it the position of every row among the samples of each scale."""
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
        encoder = self.network.encoder
        assert isinstance(encoder, nn.Module)
        for block in encoder.modules():
            if isinstance(shortcut := getattr(block, "downsample", None), partial):
                block.downsample = Shortcut(shortcut.keywords["planes"], shortcut.keywords["stride"], shortcut_gradient)
        # On the meta device the network is built for a model file, whose weights follow.
        if weights is not None and not next(self.parameters()).is_meta:
            load_encoder(encoder, Path(weights).expanduser())

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        return in_size(self.network, x, multiple=self.total_stride[0], least=2 * self.total_stride[0])


class Shortcut(nn.Module):
    """Decimates and appends channels of zeros: (B, C, H, W) -> (B, planes, ceil(H / stride), ceil(W / stride)).

    Equals MONAI's function, but an exported graph does not contain the batch size of the example.
    """

    def __init__(self, planes: int, stride: int, gradient: bool) -> None:
        super().__init__()
        self.planes, self.stride, self.gradient = planes, stride, gradient

    def forward(self, x: Tensor) -> Tensor:
        """Returns the shortcut's output."""
        x = decimate(x, (self.stride, self.stride))
        return F.pad(x if self.gradient else x.detach(), (0, 0, 0, 0, 0, self.planes - x.shape[1]))


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Loads all weights of `encoder` from a file, or none. Raises ArtifactError where a weight does not fit."""
    if not path.is_file():
        raise ArtifactError("no such file of encoder weights", where=str(path), fix="check model.weights")
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers raise errors of any class for a damaged file
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
