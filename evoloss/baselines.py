"""The hand-written losses: what searches start from and are compared with. Plain rows, no torch.

The independent torch function that checks each row lives in `tests/test_baselines.py`. Sums over classes stand here
where a source takes the mean: then the row is K times the source, and a matched scale makes them one.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Baseline:
    """A loss from the literature as a formula of the language, with what its origin leaves to choose already chosen.

    `classes` is set where a loss is defined for that many classes only.
    """

    name: str
    expression: str
    family: str
    paper: str
    note: str = ""
    classes: int | None = None


@dataclass(frozen=True)
class Unwritable:
    """A loss from the literature that no formula of the language says, and why."""

    name: str
    family: str
    paper: str
    reason: str


_ROWS = (
    Baseline(
        "ce",
        "-y*log(p)",
        "classification",
        "Good 1952, doi:10.1111/j.2517-6161.1952.tb00104.x",
        "cross-entropy, the logarithmic score",
    ),
    Baseline(
        "ls",
        "-(0.9*y + 0.1/K)*log(p)",
        "classification",
        "Szegedy et al. 2016, arXiv:1512.00567",
        "label smoothing 0.1, spread over all K classes, the right one too, as in torch's cross_entropy",
    ),
    Baseline(
        "sparse-ls",
        "-y*((0.75 + 0.25/K)*log(p) + 0.25*(K - 1)/K*log(max(1 - p, 1e-7)/(K - 1)))",
        "classification",
        "Raymond et al. 2023, arXiv:2209.08907",
        "sparse label smoothing 0.25, the authors' demo; their code and README add the second term, which rewards "
        "certainty: subtracted, the optimum is that of label smoothing; their floor 1e-7 keeps the logarithm finite",
    ),
    Baseline(
        "focal",
        "-y*(1 - p)**2*log(p)",
        "classification",
        "Lin et al. 2017, arXiv:1708.02002",
        "gamma 2; of the softmax, where the paper's is of a sigmoid; without alpha (0.25 there), here a mere factor",
    ),
    Baseline(
        "poly1",
        "-y*log(p) + 2*y*(1 - p)",
        "classification",
        "Leng et al. 2022, arXiv:2204.12511",
        "Poly-1 with epsilon 2, the paper's for ImageNet; -1 for detection there, 1 in ports to torch",
    ),
    Baseline(
        "gce",
        "y*(1 - p**0.7)/0.7",
        "classification",
        "Zhang & Sabuncu 2018, arXiv:1805.07836",
        "generalized cross-entropy, q 0.7",
    ),
    Baseline(
        "sce",
        "-0.1*y*log(p) - p*log(max(y, 0.0001))",
        "classification",
        "Wang et al. 2019, arXiv:1908.06112",
        "symmetric cross-entropy, alpha 0.1 and beta 1 as for CIFAR-10 (6 and 0.1 for CIFAR-100); log 0 is log 1e-4 = "
        "-9.21 as in the code, where the paper is often quoted with A = -4",
    ),
    Baseline(
        "brier",
        "(p - y)**2",
        "classification",
        "Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2",
        "squared error on p; the sum over classes as in the paper, where torch's mse_loss takes the mean",
    ),
    Baseline(
        "squared-logits",
        "(z - y)**2",
        "classification",
        "Hui & Belkin 2020, arXiv:2006.07322",
        "squared error on z; the paper's mean over classes is a sum here, its rescaling for many classes is left out",
    ),
    Baseline(
        "mae",
        "abs(p - y)",
        "classification",
        "Ghosh et al. 2017, arXiv:1712.09482",
        "mean absolute error, in spite of its name the sum over classes as in the paper: 2*(1 - p) of the right class",
    ),
    Baseline(
        "hinge",
        "y*relu(1 - z) + (1 - y)*relu(1 + z)",
        "classification",
        "Cortes & Vapnik 1995, doi:10.1007/BF00994018",
        "each class against the rest, margin 1; the forms that compare two logits are not writable",
    ),
    Baseline(
        "bce",
        "y*softplus(-z) + (1 - y)*softplus(z)",
        "classification",
        "Wightman et al. 2021, arXiv:2110.00476",
        "binary cross-entropy of each class, of the sigmoid and not of p; torch's mean over classes is a sum here; "
        "softplus, since log(sigmoid(z)) is infinite for large logits",
    ),
    Baseline(
        "squentropy",
        "-y*log(p) + (1 - y)*z**2/(K - 1)",
        "classification",
        "Hui et al. 2023, arXiv:2302.03952",
        "cross-entropy plus the mean square of the other logits; no parameter",
    ),
    Baseline(
        "rooted-logistic",
        "3*y*(1 - p**(1/3))",
        "classification",
        "Wang et al. 2023, arXiv:2310.03890",
        "k 3 and m 3, the authors' default for CIFAR-10; the root is written with six digits",
    ),
    Baseline(
        "alternate-m",
        "y*(1 - p)/p",
        "classification",
        "Noel et al. 2023, arXiv:2303.09935",
        "M as in the authors' notebooks, of the right class; their full M adds (1 - y)/(1 - p), infinite at p = 1",
    ),
    Baseline(
        "alternate-l",
        "y/sqrt(p*(2 - p))",
        "classification",
        "Noel et al. 2023, arXiv:2303.09935",
        "L, there 1/sqrt(1 - (p - 1)**2): the same without the cancellation; their full L is infinite at p = 1",
    ),
    Baseline(
        "ngl",
        "exp(2.4092 - p*(1 + y)) - cos(cos(sin(p)))",
        "classification",
        "Akhmedova & Körber 2024, arXiv:2404.12948",
        "found by genetic programming; summed over classes, where the authors' torch code takes the mean: K times it",
    ),
    Baseline(
        "ngl-sigmoid",
        "exp(2.4092 - sigmoid(p)*(1 + y)) - cos(cos(sin(sigmoid(p))))",
        "classification",
        "Akhmedova & Körber 2024, arXiv:2404.12948",
        "NGL as the authors' TensorFlow example runs it, with a sigmoid on top of the softmax (scaling=True); K times "
        "their mean; which of the two made the paper's tables is not said",
    ),
    Baseline(
        "ganetic",
        "p**3 + sqrt(3.985*y/(p + 1e-8) + 1e-8)",
        "classification",
        "Akhmedova & Körber 2024, arXiv:2406.05023",
        "the authors' TensorFlow code, made for GANs; their torch code divides by the sum of p + 1e-8 over all "
        "elements; the second 1e-8 keeps the root's slope finite where y is 0",
    ),
    Baseline(
        "baikal",
        "y/p - log(p)",
        "classification",
        "Gonzalez & Miikkulainen 2020, arXiv:1905.11528",
        "found by genetic programming; the logarithm is of all classes; K times the paper's mean",
    ),
    Baseline(
        "baikal-cma",
        "1.1135*1.3716/0.8411*y/p - 2.7278*0.9863*(log(p) + log(1.5352))",
        "classification",
        "Gonzalez & Miikkulainen 2020, arXiv:1905.11528",
        "Baikal with constants tuned by CMA-ES, as in a third party's code: whether 2.7278 multiplies the fraction "
        "too is not settled; that code scales the logits, not p, by 1.5352; K times the mean; log(p) stands alone, "
        "since only that is log-softmax",
    ),
    Baseline(
        "taylor-glo",
        "-8.2896*(p - 7.5216) - 0.2415*(p - 7.5216)**2 - 7.8726*(p - 7.5216)**3"
        " - 8.9666*(y + 10.9408)*(p - 7.5216) - 2.0184*(y + 10.9408)*(p - 7.5216)**2"
        " - 7.0513*(y + 10.9408)**2*(p - 7.5216)",
        "classification",
        "Gonzalez & Miikkulainen 2021, arXiv:2002.00059",
        "the vector evolved on MNIST that the authors' repository ships (LossFromMNIST), summed over classes as there; "
        "factorials are in the coefficients, where the formula of the patent has 1/2 and 1/6 before them",
    ),
    Baseline(
        "xtreme-margin",
        "y*(sign(relu(2*p - 1))/(1 + (2*p - 1)**2) + (1 - sign(relu(2*p - 1)))*exp(1)*(1 - p))",
        "classification",
        "Wali 2022, arXiv:2211.00176",
        "lambda 1 for both classes: the paper names no default, and the language cannot tell one class from the other; "
        "sign(relu(2*p - 1)) is 1 where the prediction is right, else 0",
        classes=2,
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
        "Motta 2020, github.com/mfmotta/computer_vision_experiments_loss_functions_tests",
        "range 10, coupling 1; his code floors the denominator at 1e-7, which never acts",
    ),
    Baseline(
        "triplet",
        "trip(relu(Dp**2 - Dn**2 + 0.85))",
        "metric",
        "Schroff et al. 2015, arXiv:1503.03832",
        "squared distances, margin 0.85 as in M. F. Motta's experiment, 0.2 in the paper",
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
        "mo-vic 2019, github.com/mo-vic/standalone-center-loss",
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


_MISSING = (
    Unwritable(
        "weston-watkins",
        "classification",
        "Weston & Watkins 1998, CSD-TR-98-04, Royal Holloway",
        "the hinge of torch's multi_margin_loss: each other logit is compared with the right one of the same sample, "
        "but a formula of one class sees the others through the softmax only; the form for each class is `hinge`",
    ),
    Unwritable(
        "crammer-singer",
        "classification",
        "Crammer & Singer 2001, jmlr.org/papers/v2/crammer01a.html",
        "the right logit against the largest other one: a maximum over the classes of a sample; `cls` is a sum",
    ),
    Unwritable(
        "contrastive-center",
        "center",
        "Qi & Su 2017, arXiv:1707.07391",
        "a ratio of two sums over the classes of a sample, d(y)**2 to 1 + the sum of the others; `cls` takes the mean "
        "over samples before anything can be divided",
    ),
    Unwritable(
        "island",
        "center",
        "Cai et al. 2018, arXiv:1710.03144",
        "a sum over pairs of centers of their cosine; a formula sees distances from samples to centers only",
    ),
)

UNWRITABLE = {row.name: row for row in _MISSING}
