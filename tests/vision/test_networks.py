from urllib.error import URLError

import pytest
import torch
from torch import nn

from evoloss.errors import EvolossError
from evoloss.vision import networks
from evoloss.vision.networks import Design, Traits, build, tried

MOMENTS = (torch.tensor([0.4]).view(1, 1, 1, 1), torch.tensor([0.3]).view(1, 1, 1, 1))
SMALL = Design("shufflenet_v2_x0_5", "classification", 5, 32)
MASKED = Design("lraspp_mobilenet_v3_large", "segmentation", 4, 32)


def images(count=3, channels=3, side=32, seed=0):
    shape = (count, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "task", "told"),
    [
        ("resnet17", "classification", "resnet18"),
        ("ResNet50", "classification", "resnet50"),
        ("fcn_resnet50", "classification", "others, 80 in all"),
        ("resnet18", "segmentation", "lraspp_mobilenet_v3_large"),
    ],
)
def test_an_unknown_name_comes_with_known_ones(name, task, told):
    with pytest.raises(EvolossError) as caught:
        networks.check(name, task)
    assert f"torchvision has no network `{name}` for {task}" in str(caught.value)
    assert told.replace("80", str(len(networks.names(task)))) in str(caught.value)


@pytest.mark.parametrize(
    ("design", "traits"),
    [
        (SMALL, Traits(1024, 0.1)),
        (Design("squeezenet1_1", "classification", 5, 32), Traits(None, None)),  # it ends in a convolution
        (Design("regnet_y_400mf", "classification", 5, 32, amp=True), Traits(440, 0.1)),
        (Design("googlenet", "classification", 5, 32), Traits(1024, 0.1)),  # with auxiliary heads, unless told
        (MASKED, Traits(None, 0.01)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_network_turns_out_to_be(design, traits):
    assert tried(design) == traits


def test_statistics_settle():
    assert Traits(None, None).unsettled(1) == 0
    assert Traits(None, 0.01).unsettled(80) == pytest.approx(0.4475, abs=1e-4)  # .99 ** 80


@pytest.mark.parametrize("name", ["alexnet", "vit_b_32"])
def test_images_that_do_not_fit_are_one_line(name):
    with pytest.raises(EvolossError) as caught:
        tried(Design(name, "classification", 5, 24))
    assert f"`{name}` does not take images of 24 x 24 (" in str(caught.value)
    assert "--image-size" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_follow_from_the_seed_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (build(SMALL, seed, MOMENTS, 4) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_logits_are_the_last_layer_of_the_embedding():
    network = build(SMALL, 0, MOMENTS, 4).eval()
    embeddings, logits = network(images())
    assert (embeddings.shape, logits.shape) == ((3, 1024), (3, 5))
    torch.testing.assert_close(network.head(embeddings), logits)


def test_grey_images_of_other_sizes_are_normalized_and_scaled():
    network = build(SMALL, 0, MOMENTS, 4).eval()
    grey = torch.full((2, 1, 8, 8), 102, dtype=torch.uint8)  # .4, the mean
    assert network._pixels(grey).shape == (2, 3, 32, 32)
    torch.testing.assert_close(network._pixels(grey), torch.zeros(2, 3, 32, 32), atol=1e-6, rtol=0)
    assert network(grey)[1].shape == (2, 5)


def test_scoring_in_parts_changes_nothing():
    whole, parts = (build(SMALL, 0, MOMENTS, chunk).eval() for chunk in (8, 3))
    torch.testing.assert_close(whole(images(8)), parts(images(8)))


def test_mixed_precision_gives_floats_that_are_near():
    """On a network without batch norms, which would blow up the difference."""
    designs = [Design("squeezenet1_1", "classification", 5, 32, amp=amp) for amp in (False, True)]
    exact, rough = (build(design, 0, MOMENTS, 4).eval()(images())[1] for design in designs)
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).norm() < 0.03 * exact.norm()  # bfloat16 has 8 bits


def test_a_segmentation_network_gives_logits_for_each_pixel():
    embeddings, logits = build(MASKED, 0, MOMENTS, 4)(images())
    assert logits.shape == (3, 4, 32, 32)
    assert embeddings is logits


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "squeezenet1_1"])
def test_pretrained_weights_are_kept_but_for_the_last_layer(monkeypatch, name):
    from torchvision.models import get_model
    from torchvision.models._api import WeightsEnum

    theirs = get_model(name, weights=None)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: theirs.state_dict())
    network = build(Design(name, "classification", 5, 32, pretrained=True), 0, MOMENTS, 4)
    assert network.eval()(images())[1].shape == (3, 5)
    torch.testing.assert_close(network.mean.flatten().tolist(), list(networks.IMAGENET[0]))
    ours, known = network.model.state_dict(), theirs.state_dict()
    new = {key for key in known if not torch.equal(ours[key].flatten()[:5], known[key].flatten()[:5])}
    last = next(
        key for key, layer in reversed(list(theirs.named_modules())) if isinstance(layer, nn.Linear | nn.Conv2d)
    )
    assert new == {f"{last}.weight", f"{last}.bias"}


def test_weights_that_cannot_be_fetched_are_one_line(monkeypatch):
    def refuse(*_arguments, **_options):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(EvolossError, match=r"cannot fetch the weights of `resnet18` .*leave out --pretrained"):
        tried(Design("resnet18", "classification", 5, 32, pretrained=True))
    with pytest.raises(EvolossError, match="cannot fetch"):
        tried(Design("lraspp_mobilenet_v3_large", "segmentation", 5, 32, pretrained=True))
