import json

import pytest
from canvases import scatter

TINY = ("--samples", "64", "--epochs", "1", "--batch-size", "32", "--lr", "0.003", "--seeds", "2")


def test_a_torchvision_network_stands_in_for_a_proxy(run_cli):
    arguments = ("evaluate", "--expr", "(p - y)**2", "--model", "shufflenet_v2_x0_5", "--amp", *TINY)
    code, out, err = run_cli(*arguments)
    assert code == 0
    assert err.startswith("evoloss: after 2 steps the batch norms of `shufflenet_v2_x0_5` still hold 81% of")
    protocol, header, *rows = out.splitlines()
    assert protocol == (
        "digits, shufflenet_v2_x0_5, 64 samples x 1 epoch, adam at 0.003, 2 fresh seeds, images of 32 x 32, bfloat16"
    )
    assert header.startswith("loss ")
    assert "test accuracy" in header
    assert {row.split()[0] for row in rows[:2]} == {"ce", "cls((p"}


def test_a_loss_per_pixel_beside_cross_entropy(run_cli, tmp_path):
    scatter(tmp_path, 10)
    arguments = ("--task", "segmentation", "--dataset", f"folder:{tmp_path}", "--image-size", "32", "--epochs", "1")
    budget = ("--batch-size", "3", "--lr", "0.003", "--seeds", "2", "--json")
    code, out, err = run_cli("evaluate", "--expr", "(p - y)**2", *arguments, *budget)
    assert code == 0
    assert err == (
        "evoloss: after 2 steps the batch norms of `lraspp_mobilenet_v3_large` still hold 98% of their initial "
        "statistics, with which it is scored: train longer, or take another network\n"
    )
    answer = json.loads(out)
    assert answer["score"] == "mean IoU"
    assert "lraspp_mobilenet_v3_large, 6 samples x 1 epoch" in answer["protocol"]
    scores = [score for row in answer["standings"] for score in row["standing"]["test"]]
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)


CE = ("--expr", "-y*log(p)")
MASKS = ("--task", "segmentation")
BAD = {
    "unknown network": ([*CE, "--model", "resnet17"], "there are resnet18"),
    "a classifier for masks": ([*CE, *MASKS, "--model", "resnet18"], "there are deeplabv3_mobilenet_v3_large"),
    "unknown task": ([*CE, "--task", "detection"], "classification or segmentation, not `detection`"),
    "images too small": ([*CE, "--model", "alexnet"], "`alexnet` does not take images of 32 x 32"),
    "masks of digits": ([*CE, *MASKS], "got `digits`"),
    "a proxy and a network": ([*CE, "--model", "resnet18", "--proxy", "mlp"], "--proxy is for proxies"),
    "workers": ([*CE, "--model", "resnet18", "--workers", "2"], "--workers is for proxies"),
    "a cache": ([*CE, "--model", "resnet18", "--cache", "c.sqlite"], "--cache is for proxies"),
    "mixed precision of a proxy": ([*CE, "--amp"], "--amp is for networks of torchvision"),
    "samples": ([*CE, "--model", "resnet18", "--samples", "5000"], "--samples should be between 10 and the"),
    "rates": ([*CE, "--model", "resnet18", "--lr", "sgd:0.1"], "--lr names `sgd`"),
    "size": ([*CE, "--model", "resnet18", "--image-size", "0"], "--image-size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(run_cli, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    code, out, err = run_cli("evaluate", *arguments)
    assert code in (1, 2)
    assert message in err
    assert err.startswith("evoloss: ")
    assert len(err.splitlines()) == 1
    assert not out


def test_a_space_may_have_a_sweep_for_a_network(run_cli, tmp_path):
    from evoloss.config import load_space

    space = load_space("smoke")
    rung = space.rungs["mlp"][0].model_copy(
        update={"samples": 64, "epochs": 1, "batch_size": 32, "rates": (0.004,), "scored": None}
    )
    path = tmp_path / "mine.toml"
    path.write_text(space.model_copy(update={"rungs": {**space.rungs, "shufflenet_v2_x0_5": (rung,)}}).toml())
    arguments = ("--expr", "-y*log(p)", "--model", "shufflenet_v2_x0_5", "--space", path, "--seeds", "2", "--json")
    code, out, _ = run_cli("evaluate", *arguments)
    assert code == 0
    assert "64 samples x 1 epoch, adam at 0.004, 2 fresh seeds" in json.loads(out)["protocol"]
