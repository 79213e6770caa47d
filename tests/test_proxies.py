import pytest
import torch

from evoloss.errors import EvolossError
from evoloss.proxies import EMBEDDING_DIM, PROXIES, _Convolution3x3, build, check

torch.set_num_threads(1)

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
WIDTHS = {"siamese-mlp": 128, "lenet++": 2, "resnet": 128}  # of the embedding, where it is not EMBEDDING_DIM
ACTIVATED = {"siamese-mlp"}  # a ReLU on the embedding, as in the original


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_proxy_gives_embeddings_and_logits(name, shape, num_classes):
    model = build(name, shape, num_classes, seed=0)
    images = torch.randn(4, *shape)
    embedding, logits = model(images)
    assert embedding.shape == (4, WIDTHS.get(name, EMBEDDING_DIM))
    assert logits.shape == (4, num_classes)
    torch.testing.assert_close(logits, model.head(embedding))
    assert isinstance(model.activation, torch.nn.ReLU) == (name in ACTIVATED)
    logits.square().mean().backward()
    # An untrained embedding may be positive everywhere: then the slope of its PReLU has no gradient.
    gradients = {key: parameter.grad for key, parameter in model.named_parameters() if key != "activation.weight"}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("name", PROXIES)
def test_the_seed_decides_the_weights(name):
    first, same, other = (build(name, (1, 28, 28), 10, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", PROXIES)
def test_the_global_generator_is_left_alone(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    weights = build(name, (1, 8, 8), 3, seed=1).head.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(build(name, (1, 8, 8), 3, seed=1).head.weight, weights)


@pytest.mark.parametrize("name", PROXIES)
def test_one_proxy_does_not_share_weights_with_the_next(name):
    first, second = (build(name, (1, 8, 8), 3, seed=1) for _ in range(2))
    with torch.no_grad():
        first.head.weight.zero_()
    assert second.head.weight.any()


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("width", [2, 64])
def test_the_width_of_the_embedding_can_be_chosen(name, width):
    embedding, logits = build(name, (1, 28, 28), 10, 0, width)(torch.randn(3, 1, 28, 28))
    assert embedding.shape == (3, width)
    assert logits.shape == (3, 10)


@pytest.mark.parametrize("side", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_of_few_pixels_is_a_convolution(side, layout):
    torch.manual_seed(side)
    own = _Convolution3x3(5, 7).to(memory_format=layout)
    plain = torch.nn.Conv2d(5, 7, 3, padding=1, bias=False).to(memory_format=layout)
    plain.load_state_dict(own.state_dict())
    images = torch.randn(6, 5, side, side).contiguous(memory_format=layout)
    weights = torch.randn(6, 7, side, side)
    results = []
    for convolution in (own, plain):
        x = images.clone().requires_grad_()
        y = convolution(x)
        results.append([y, *torch.autograd.grad((y * weights).sum(), [x, convolution.weight])])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


COUNTS = [
    ("mlp", (1, 28, 28), 125_898),
    ("inception", (3, 32, 32), 182_826),
    ("siamese-mlp", (1, 28, 28), 134_794),
    ("lenet++", (1, 28, 28), 797_191),
    ("resnet", (1, 28, 28), 418_570),
]


def test_every_proxy_is_counted():
    assert [name for name, *_ in COUNTS] == list(PROXIES)


@pytest.mark.parametrize(("name", "shape", "count"), COUNTS)
def test_parameter_counts_are_those_of_the_docstrings(name, shape, count):
    assert parameters(build(name, shape, 10, seed=0)) == count
    assert f"{count:,} parameters" in PROXIES[name].__doc__


# Counted in the original code: mo-vic/standalone-center-loss at 4973090, models/resnet.py.
@pytest.mark.parametrize(
    ("shape", "width", "count"),
    [((1, 28, 28), 2, 401_056), ((1, 28, 28), 128, 418_570), ((3, 32, 32), 2, 401_344), ((3, 32, 32), 128, 418_858)],
)
def test_the_resnet_is_the_original(shape, width, count):
    assert parameters(build("resnet", shape, 10, 0, width)) == count


def test_the_siamese_mlp_is_the_original():
    """100,480 + 16,512 + 16,512 in Keras's summary, Glorot-uniform: |w| <= sqrt(6/(in + out))."""
    model = build("siamese-mlp", (1, 28, 28), 10, 0)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert [parameters(layer) for layer in layers[:3]] == [100_480, 16_512, 16_512]
    for layer in layers:
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


@pytest.mark.parametrize("name", PROXIES)
def test_known_names_pass(name):
    check(name)


@pytest.mark.parametrize("call", [check, lambda name: build(name, (1, 8, 8), 3, seed=0)])
def test_an_unknown_name_is_told_the_nearest(call):
    with pytest.raises(
        EvolossError, match=r"unknown proxy `inceptoin`, did you mean `inception`.*expected mlp, inception"
    ):
        call("inceptoin")
