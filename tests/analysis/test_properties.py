import re

import pytest
import torch

from evoloss.analysis.distances import Distances
from evoloss.analysis.parts import split
from evoloss.analysis.predictions import _miscalibrated
from evoloss.analysis.properties import DISTANCES, LOGITS, PROPERTIES, findings
from evoloss.analysis.subject import Subject, distributions, share_text
from evoloss.baselines import BASELINES
from evoloss.expression import Expression

P, C, R = "proved", "checked", "refuted"
COLUMNS = ("monotone", "bounded", "bounded gradient", "shift-invariant", "proper", "calibrated", "noise-robust")

# What the literature says of them: Gneiting and Raftery 2007 (proper), Ghosh et al. 2017 (noise-robust: MAE, not CE or
# squared error), Zhang and Sabuncu 2018 (GCE), Charoenphakdee et al. 2021 (focal: calibrated, not proper), Tewari and
# Bartlett 2007 (hinge of each class against the rest: not calibrated where no class has a majority).
KNOWN = {
    "ce": (P, R, P, P, P, P, R),
    "mae": (P, P, P, P, R, P, P),
    "gce": (P, P, P, P, R, P, R),
    "focal": (P, R, P, P, R, P, R),
    "ls": (R, R, P, P, R, P, R),
    "ngl": (R, P, P, P, R, P, R),
    "brier": (P, P, P, P, P, P, R),
    "hinge": (P, R, P, R, R, R, R),
    "baikal": (R, R, R, P, R, P, R),
}

# p of the right class of ten: label smoothing's is 1 - 0.1 + 0.1/10, Baikal's 1/sqrt(K) (reference/losses.md 2.1).
OPTIMA = {
    "ce": "1",
    "mae": "1",
    "gce": "1",
    "focal": "1",
    "ls": "0.91",
    "ngl": "0.391",
    "brier": "1",
    "baikal": "0.3162",
}


_KNOWN = {}


def explained(text, prover, num_classes=10):
    """The findings of a loss by property, and what they are about. A loss is looked at once, with any real prover."""
    key = (text, num_classes, type(prover))
    if key not in _KNOWN:
        _KNOWN[key] = look(text, prover, num_classes)
    return _KNOWN[key]


def look(text, prover, num_classes):
    expression = Expression.parse(BASELINES[text].expression if text in BASELINES else text)
    parts = split(expression)
    subjects = {
        kind: (Subject if kind == "logits" else Distances)(part, num_classes, prover)
        for kind, part in parts.by_kind.items()
    }
    return {row.property: row for row in findings(parts, subjects)}, subjects


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_of_a_loss(name, prover):
    found, subjects = explained(name, prover)
    assert tuple(found[column].verdict for column in COLUMNS) == KNOWN[name]
    if name in OPTIMA:
        assert found["optimum"].verdict == P
        assert found["optimum"].evidence.startswith(f"p = {OPTIMA[name]}: ")
    assert found["symmetric over classes"].verdict == P
    assert {row.verdict for key, row in found.items() if PROPERTIES[key].kinds == DISTANCES} == {"does not apply"}
    subject = subjects["logits"]
    if found["calibrated"].verdict == P:  # and numbers agree with the proof
        best, risks = subject.minima.best
        for row in range(len(risks)):
            assert not _miscalibrated(subject, subject.minima.shares[row], best[row], float(risks[row]))


@pytest.mark.parametrize("name", ["ngl", "gce", "focal", "ls", "mae"])
def test_the_counterexample_of_an_improper_loss_is_one(name, prover):
    _, subjects = explained(name, prover)
    subject = subjects["logits"]
    best, risks = subject.minima.best
    own = subject.risk.risks(subject.minima.shares.log(), subject.minima.shares)
    assert float((own - risks).max()) > 1e-3


def test_the_numbers_of_a_refutation_can_be_computed_again(prover):
    found, subjects = explained("ngl", prover)
    before, at, after = re.fullmatch(
        r"rises from (\S+) at p = (\S+) to (\S+) at p = 1", found["monotone"].evidence
    ).groups()
    risk = subjects["logits"].risk
    values = risk.on_line(torch.tensor([float(at), 1 - 9e-7]).double().numpy())[0]
    assert [f"{value:.4g}" for value in values] == [before, after]
    assert "18" in explained("mae", prover)[0]["noise-robust"].evidence  # 2*(K - 1)


@pytest.mark.parametrize(
    ("text", "num_classes", "column", "verdict"),
    [
        ("-y*log(p)", 2, "proper", P),
        ("(p - y)**2", 2, "proper", P),
        ("abs(p - y)", 2, "noise-robust", P),
        ("-y*log(p)", 2, "noise-robust", R),
        ("-y*z", 3, "noise-robust", R),
        ("(1 - y)*z - y*z*(K - 1)", 3, "noise-robust", P),
        ("y*softplus(-z) + (1 - y)*softplus(z)", 10, "bounded gradient", P),
        ("(z - y)**2", 10, "bounded gradient", R),
        ("(z - y)**2", 10, "monotone", R),
        ("y*log(p)", 10, "monotone", R),
        ("y*log(p)", 10, "calibrated", R),
        ("y*(p - 0.5)**2 + (1 - y)*p**2", 10, "proper", R),
        ("z**2*y*p - log(p)*y", 4, "bounded gradient", R),
        ("y*softplus(2 - z)*(1 - p)", 4, "calibrated", R),  # larger logits all together leave nothing to lose
        ("-log(sigmoid(p*y + z*y))", 4, "shift-invariant", R),
    ],
)
def test_further_verdicts(text, num_classes, column, verdict, prover):
    assert explained(text, prover, num_classes)[0][column].verdict == verdict


def test_without_a_prover_nothing_is_called_proved_that_needs_one():
    class Silent:
        def ask(self, *_):
            return None

    found, _ = explained("-y*log(p)", Silent())
    by_construction = {"shift-invariant", "symmetric over classes"}
    assert {name for name, row in found.items() if row.verdict == P} == by_construction
    for name in ("optimum", "monotone", "bounded", "bounded gradient", "proper", "calibrated"):
        assert found[name].verdict == C
        assert re.search(r"\d", found[name].evidence)  # at how many points


@pytest.mark.parametrize(
    ("name", "pulls", "pushes", "bounded", "force"),
    [
        ("contrastive", P, P, R, R),
        ("yukawa", P, P, R, R),
        ("triplet", P, P, R, R),
        ("pair(Y*tanh(D) + (1 - Y)*exp(-D))", P, P, P, P),
        ("cls(d)", P, R, R, P),
        ("cls(y*d**2)", P, R, R, R),
        ("pair(Y*(D - 1)**2)", R, R, R, R),
    ],
)
def test_forces(name, pulls, pushes, bounded, force, prover):
    found, _ = explained(name, prover)
    columns = ("pulls", "pushes", "bounded in distance", "bounded force")
    assert tuple(found[column].verdict for column in columns) == (pulls, pushes, bounded, force)
    assert found["isometry-invariant"].verdict == P
    assert {row.verdict for key, row in found.items() if PROPERTIES[key].kinds == LOGITS} == {"does not apply"}
    assert found["proper"].evidence == "the loss does not see the logits"


def test_where_distances_come_to_rest(prover):
    rest = {name: explained(name, prover)[0]["rest"].evidence for name in ("contrastive", "yukawa", "cls(y*d**2)")}
    assert rest["contrastive"].startswith("agreeing pairs: 0; other pairs: from 1.0")
    assert rest["yukawa"].startswith("agreeing pairs: 0; other pairs: infinity")
    assert rest["cls(y*d**2)"].startswith("own center: 0; other centers: anywhere")


def test_both_parts_of_a_loss_are_looked_at(prover):
    expression = Expression.parse("cls(-y*log(p)) + 0.0417*cls(d)")
    parts = split(expression)
    subjects = {
        "logits": Subject(parts.by_kind["logits"], 10, prover),
        "centers": Distances(parts.by_kind["centers"], 10, prover),
    }
    found = {(row.property, row.part): row.verdict for row in findings(parts, subjects)}
    assert found["proper", "cls(-y*log(p))"] == P
    assert found["pulls", "cls(0.0417*d)"] == P
    assert found["pushes", "cls(0.0417*d)"] == R
    assert "does not apply" not in found.values()


@pytest.mark.parametrize("count", [2, 3, 10, 100])
def test_the_distributions_have_one_likeliest_class_and_no_class_without_a_chance(count):
    shares = distributions(count)
    assert shares.shape == (12, count)
    torch.testing.assert_close(shares.sum(1), torch.ones(12, dtype=torch.float64))
    assert (shares[:, 0] > shares[:, 1:].amax(1)).all()
    assert (shares > 0).all()


def test_shares_for_people():
    assert share_text(1 - 9e-7, 10) == "1"
    assert share_text(0.9999, 10) == "0.9999"
    assert share_text(0.39104, 10) == "0.391"
    assert share_text(1e-7, 10) == "0"
