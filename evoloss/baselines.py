"""The hand-written losses: what every search starts from and is compared with. Plain rows, no torch.

The independent torch function that checks each row lives in `tests/test_baselines.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Baseline:
    """A loss from the literature as a formula of the language, with what its origin leaves to choose already chosen."""

    name: str
    expression: str
    family: str
    paper: str
    note: str = ""


_ROWS = (
    Baseline(
        "ce",
        "-y*log(p)",
        "classification",
        "Good 1952, Rational Decisions",
        "cross-entropy",
    ),
    Baseline(
        "ngl",
        "exp(2.4092 - p*(1 + y)) - cos(cos(sin(p)))",
        "classification",
        "Akhmedova & Körber 2024, arXiv:2404.12948",
        "found by genetic programming; summed over classes, where the authors' torch code takes the mean: K times it",
    ),
    Baseline(
        "contrastive",
        "pair(Y*D**2 + (1 - Y)*relu(1 - D)**2)",
        "metric",
        "Hadsell et al. 2006, doi:10.1109/CVPR.2006.100",
        "margin 1, no factor 1/2, agreeing and other pairs weighted equally, as in M. F. Motta's experiment",
    ),
    Baseline(
        "yukawa",
        "pair((1 - Y)*exp(-10*D)/D + Y*D**3)",
        "metric",
        "M. F. Motta 2020, computer_vision_experiments_loss_functions_tests",
        "range 10, coupling 1; his code floors the denominator at 1e-7, which never acts",
    ),
    Baseline(
        "triplet",
        "trip(relu(Dp**2 - Dn**2 + 0.85))",
        "metric",
        "Schroff et al. 2015, arXiv:1503.03832",
        "squared distances, margin 0.85, as in M. F. Motta's experiment",
    ),
    Baseline(
        "center",
        "cls(-y*log(p)) + 0.01*cls(y*d**2)",
        "center",
        "Wen et al. 2016, doi:10.1007/978-3-319-46478-7_31",
        "cross-entropy + lambda * center loss; lambda 0.01, without the factor 1/2 as in K. Zhou's pytorch-center-loss",
    ),
    Baseline(
        "standalone-center",
        "cls(y*d**2) - 0.1*partner((1 - Y)*log(1 + D**2))",
        "center",
        "mo-vic 2019, standalone-center-loss",
        "weights 1.0 and 0.1; the 1 in the logarithm is in the code and missing in its README",
    ),
)

BASELINES = {row.name: row for row in _ROWS}


def family(variables: frozenset[str]) -> str:
    """The family of a formula by what it sees: "classification", "metric", "center", or a mix joined by "+"."""
    seen = {
        "classification": variables & {"p", "z"},
        "metric": variables & {"D", "Dp", "Dn"},
        "center": variables & {"d"},
    }
    return "+".join(name for name, names in seen.items() if names) or "none"
