"""What every loss of conf/loss promises, with its settings there: a new one is tested by existing."""

import inspect
from pathlib import Path

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from wellseg.errors import ConfigError
from wellseg.types import IGNORE

CONF = Path(__file__).parents[2] / "conf" / "loss"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.fixture(params=NAMES)
def loss(request):
    return instantiate(OmegaConf.load(CONF / f"{request.param}.yaml"))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Six images 8 x 9: one with an empty label, one wholly positive, some pixels ignored, one image ignored whole."""
    g = torch.Generator().manual_seed(7)
    logits = torch.randn(6, 1, 8, 9, generator=g) * 2
    target = (torch.rand(6, 8, 9, generator=g) < 0.3).to(torch.uint8)
    target[1], target[2] = 0, 1
    target[torch.rand(6, 8, 9, generator=g) < 0.2] = IGNORE
    target[4] = IGNORE
    return logits, target


def value_and_gradient(loss, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    return value.detach(), logits.grad


def test_the_issue_s_losses_are_all_there():
    assert set(NAMES) >= {"bce", "bce_weighted", "dice", "bce_dice", "focal", "tversky", "jaccard", "lovasz"}


@pytest.mark.parametrize("name", NAMES)
def test_yaml_shows_every_setting_of_its_function(name):
    config = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    function = get_object(config.pop("_target_"))
    assert config.pop("_partial_") is True
    parameters = inspect.signature(function).parameters
    assert list(parameters)[:2] == ["logits", "target"]
    assert list(config) == list(parameters)[2:]


def test_value_is_a_positive_float32_scalar(loss, batch):
    value, gradient = value_and_gradient(loss, *batch)
    assert value.shape == ()
    assert value.dtype == torch.float32
    assert value > 0.05
    assert gradient.abs().sum() > 0


def test_target_dtype_does_not_matter(loss, batch):
    logits, target = batch
    assert torch.equal(loss(logits, target), loss(logits, target.long()))


def test_no_gradient_under_ignore(loss, batch):
    logits, target = batch
    _, gradient = value_and_gradient(loss, logits, target)
    assert torch.all(gradient[:, 0][target == IGNORE] == 0)


@pytest.mark.parametrize("junk", [1e4, -3e38, float("inf"), float("nan")])
def test_logits_under_ignore_do_not_matter(loss, batch, junk):
    logits, target = batch
    value, gradient = value_and_gradient(loss, logits, target)
    spoilt = torch.where((target == IGNORE)[:, None], junk, logits)
    spoilt_value, spoilt_gradient = value_and_gradient(loss, spoilt, target)
    assert torch.equal(spoilt_value, value)
    assert torch.equal(spoilt_gradient, gradient)


def test_an_image_ignored_whole_takes_no_part(loss, batch):
    logits, target = batch
    others = [0, 1, 2, 3, 5]
    torch.testing.assert_close(loss(logits, target), loss(logits[others], target[others]))


@pytest.mark.parametrize("size", [0, 3])
def test_nothing_scored_is_zero_with_zero_gradient(loss, size):
    logits = torch.randn(size, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    value, gradient = value_and_gradient(loss, logits, torch.full((size, 4, 5), IGNORE, dtype=torch.uint8))
    assert value == 0
    assert torch.all(gradient == 0)


def test_a_perfect_prediction_costs_nothing(loss, batch):
    _, target = batch
    logits = torch.where(target == 1, 40.0, -40.0)[:, None]
    assert loss(logits, target) < 1e-6


def test_every_wrong_pixel_costs(loss, batch):
    """Both kinds of error, also in the images with an empty and a full label, and each more than none."""
    _, target = batch
    logits = torch.where(target == 1, 4.0, -4.0)[:, None]
    perfect = loss(logits, target)
    for image, label in ((0, 0), (0, 1), (1, 0), (2, 1)):
        row, column = (target[image] == label).nonzero()[0].tolist()
        wrong = logits.clone()
        wrong[image, 0, row, column] *= -1
        assert loss(wrong, target) > perfect + 1e-3


def test_order_of_pixels_and_images_does_not_matter(loss, batch):
    logits, target = batch
    value = loss(logits, target)
    g = torch.Generator().manual_seed(1)
    pixels, images = torch.randperm(72, generator=g), torch.randperm(6, generator=g)
    shuffled = loss(
        logits.flatten(2)[images][..., pixels].reshape(logits.shape),
        target.flatten(1)[images][..., pixels].reshape(target.shape),
    )
    torch.testing.assert_close(shuffled, value, rtol=1e-5, atol=1e-6)


def test_gradient_is_the_slope_of_the_value(loss, batch):
    logits, target = batch
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (logits.double().requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_computed_in_float32(loss, batch, dtype):
    logits, target = batch
    logits = logits.to(dtype)
    expected, slope = value_and_gradient(loss, logits.float(), target)
    with torch.autocast("cpu", dtype=dtype):
        value, gradient = value_and_gradient(loss, logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient, slope.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("right", [1, -1])
def test_extreme_logits_stay_finite(loss, batch, dtype, right):
    _, target = batch
    logits = (torch.where(target == 1, 1e4, -1e4) * right)[:, None].to(dtype)
    value, gradient = value_and_gradient(loss, logits, target)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert value < 1e-6 if right == 1 else value > 0.1


def test_a_second_class_is_refused(loss):
    with pytest.raises(ConfigError, match=r"one logit per pixel, got K = 3"):
        loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 1, 4, 4), (1, 4, 4)])
def test_shapes_that_do_not_fit_are_refused(loss, shape):
    with pytest.raises(ValueError, match=r"logits \(B, K, H, W\) and a target \(B, H, W\), got logits \(2, 1, 4, 4\)"):
        loss(torch.zeros(2, 1, 4, 4), torch.zeros(shape, dtype=torch.uint8))


def grooves(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 24, 24) of noise with one dark groove 2 columns wide (8 % of the pixels), none in every fifth."""
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 1, 24, 24, generator=g)
    column = torch.randint(0, 24, (n, 1, 1), generator=g)
    distance = (torch.arange(24)[None, None] - column) % 24
    target = ((distance < 2) & (torch.arange(n) % 5 > 0)[:, None, None]).expand(n, 24, 24).to(torch.uint8)
    return image - 3 * target[:, None], target


def small_net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 8, (7, 3), padding=(3, 1)), nn.LeakyReLU(), nn.Conv2d(8, 1, 3, padding=1))


def test_each_loss_alone_trains_from_scratch(loss):
    """Hard Dice of held-out images; all-empty and all-positive predictions stay below 0.25."""
    net = small_net(seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(60):
        image, target = grooves(20, seed=step)
        optimizer.zero_grad()
        loss(net(image), target).backward()
        optimizer.step()
    image, target = grooves(50, seed=1000)
    with torch.no_grad():
        predicted = net(image)[:, 0] >= 0
    positive = target == 1
    assert 2 * (predicted & positive).sum() / (predicted.sum() + positive.sum()) > 0.85
