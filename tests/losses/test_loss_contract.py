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
BINARY = {"bce", "bce_weighted", "bce_dice", "bce_dice_plain"}
OF_CLASSES = {"cross_entropy", "cross_entropy_weighted", "cross_entropy_effective"}
CASES = [(name, 1) for name in NAMES if name not in OF_CLASSES] + [(name, 3) for name in NAMES if name not in BINARY]


def made(name: str):
    """The loss as its YAML sets it; the shares that an experiment has to give are given."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    if "shares" in config:
        config.shares = [50, 30, 20]
    return instantiate(config, _convert_="all")


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def case(request):
    return request.param


@pytest.fixture
def loss(case):
    return made(case[0])


@pytest.fixture
def classes(case) -> int:
    """K."""
    return case[1]


@pytest.fixture
def batch(classes) -> tuple[Tensor, Tensor]:
    """Six images 8 x 9: two of one class throughout, some pixels ignored, one image ignored whole."""
    g = torch.Generator().manual_seed(7)
    logits = torch.randn(6, classes, 8, 9, generator=g) * 2
    label = torch.rand(6, 8, 9, generator=g)
    target = (label < 0.3).to(torch.uint8) + (label < 0.12) * (classes > 1)
    target[1], target[2] = 0, 1
    target[torch.rand(6, 8, 9, generator=g) < 0.2] = IGNORE
    target[4] = IGNORE
    return logits, target.to(torch.uint8)


def sure(target: Tensor, classes: int, size: float) -> Tensor:
    """Logits (B, K, H, W) that are right everywhere: `size` for what is the case, -`size` for what is not."""
    labels = torch.tensor([1]) if classes == 1 else torch.arange(classes)
    return torch.where(target[:, None] == labels[:, None, None], size, -size)


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
    assert torch.all(gradient.movedim(1, -1)[target == IGNORE] == 0)


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
def test_nothing_scored_is_zero_with_zero_gradient(loss, classes, size):
    logits = torch.randn(size, classes, 4, 5, generator=torch.Generator().manual_seed(0))
    value, gradient = value_and_gradient(loss, logits, torch.full((size, 4, 5), IGNORE, dtype=torch.uint8))
    assert value == 0
    assert torch.all(gradient == 0)


def test_a_perfect_prediction_costs_nothing(loss, classes, batch):
    _, target = batch
    assert loss(sure(target, classes, 40.0), target) < 1e-6


def test_every_wrong_pixel_costs(loss, classes, batch):
    """All kinds of error, also in the images of one class, and each more than none."""
    _, target = batch
    logits = sure(target, classes, 4.0)
    perfect = loss(logits, target)
    errors = [(0, k) for k in range(max(classes, 2))] + [(1, 0), (2, 1)]
    for image, label in errors:
        row, column = (target[image] == label).nonzero()[0].tolist()
        wrong = logits.clone()
        pixel = wrong[image, :, row, column]
        wrong[image, :, row, column] = -pixel if classes == 1 else pixel.roll(1)
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
    logits, target = (x[..., :3, :5] for x in batch)
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
def test_extreme_logits_stay_finite(loss, classes, batch, dtype, right):
    _, target = batch
    logits = (sure(target, classes, 1e4) * right).to(dtype)
    value, gradient = value_and_gradient(loss, logits, target)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert value < 1e-6 if right == 1 else value > 0.1


@pytest.mark.parametrize("name", sorted(BINARY))
def test_several_classes_are_refused_with_the_losses_that_take_them(name):
    with pytest.raises(ConfigError, match=r"one logit per pixel, got K = 3") as error:
        made(name)(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8))
    named = error.value.fix.removeprefix("loss=").partition(", or give")[0].replace(" or ", ", ").split(", ")
    assert set(named) == {n for n, k in CASES if k > 1} - (OF_CLASSES - {"cross_entropy"})


@pytest.mark.parametrize("name", sorted(OF_CLASSES))
def test_one_output_channel_is_refused(name):
    with pytest.raises(ConfigError, match=r"two logits per pixel or more, got K = 1\n.*\n fix:   loss=bce"):
        made(name)(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 1, 4, 4), (1, 4, 4)])
def test_shapes_that_do_not_fit_are_refused(loss, classes, shape):
    got = rf"logits \(B, K, H, W\) and a target \(B, H, W\), got logits \(2, {classes}, 4, 4\)"
    with pytest.raises(ValueError, match=got):
        loss(torch.zeros(2, classes, 4, 4), torch.zeros(shape, dtype=torch.uint8))


def grooves(n: int, seed: int, classes: int) -> tuple[Tensor, Tensor]:
    """Images (n, 1, 24, 24) of noise with one groove 2 columns wide (8 % of the pixels), none in every fifth.

    It is dark, class 1; of three classes every other one is bright, class 2.
    """
    g = torch.Generator().manual_seed(seed)
    image = torch.randn(n, 1, 24, 24, generator=g)
    column = torch.randint(0, 24, (n, 1, 1), generator=g)
    distance = (torch.arange(24)[None, None] - column) % 24
    groove = ((distance < 2) & (torch.arange(n) % 5 > 0)[:, None, None]).expand(n, 24, 24)
    kind = 1 + (torch.arange(n) % 2 * (classes > 1))[:, None, None]
    return image - (groove * (9 - 6 * kind))[:, None], (groove * kind).to(torch.uint8)


def small_net(seed: int, classes: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ends = nn.Conv2d(1, 8, (7, 3), padding=(3, 1)), nn.Conv2d(8, classes, 3, padding=1)
        return nn.Sequential(ends[0], nn.LeakyReLU(), ends[1])


def test_each_loss_alone_trains_from_scratch(loss, classes):
    """Hard Dice of held-out images, of the class that is worst; constant predictions stay below 0.25."""
    net = small_net(seed=0, classes=classes)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(60):
        image, target = grooves(20, seed=step, classes=classes)
        optimizer.zero_grad()
        loss(net(image), target).backward()
        optimizer.step()
    image, target = grooves(50, seed=1000, classes=classes)
    with torch.no_grad():
        logits = net(image)
    predicted = logits[:, 0] >= 0 if classes == 1 else logits.argmax(dim=1)
    for k in range(1, max(classes, 2)):
        found, there = predicted == k, target == k
        assert 2 * (found & there).sum() / (found.sum() + there.sum()) > 0.85
