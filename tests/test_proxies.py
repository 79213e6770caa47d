import pytest
import torch

from evoloss.errors import EvolossError
from evoloss.proxies import EMBEDDING_DIM, PROXIES, build, check

torch.set_num_threads(1)

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_every_proxy_gives_embeddings_and_logits(name, shape, num_classes):
    model = build(name, shape, num_classes, seed=0)
    images = torch.randn(4, *shape)
    embedding, logits = model(images)
    assert embedding.shape == (4, EMBEDDING_DIM)
    assert logits.shape == (4, num_classes)
    torch.testing.assert_close(logits, model.head(embedding))
    assert (embedding < 0).any()  # no ReLU on the embedding
    logits.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


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


@pytest.mark.parametrize(
    ("name", "shape", "count"), [("mlp", (1, 28, 28), 125_898), ("inception", (3, 32, 32), 182_826)]
)
def test_parameter_counts_are_those_of_the_docstrings(name, shape, count):
    assert sum(parameter.numel() for parameter in build(name, shape, 10, seed=0).parameters()) == count
    assert f"{count:,} parameters" in PROXIES[name].__doc__


@pytest.mark.parametrize("name", PROXIES)
def test_known_names_pass(name):
    check(name)


@pytest.mark.parametrize("call", [check, lambda name: build(name, (1, 8, 8), 3, seed=0)])
def test_an_unknown_name_is_told_the_nearest(call):
    with pytest.raises(
        EvolossError, match=r"unknown proxy `inceptoin`, did you mean `inception`.*expected mlp, inception"
    ):
        call("inceptoin")
