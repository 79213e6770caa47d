"""Properties of what sees the logits: where the loss is least, whether it is proper, bounded, robust."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from evoloss.analysis.parts import names, substitute
from evoloss.analysis.risk import FARTHEST, one_hot
from evoloss.analysis.subject import LINE_POINTS, TIED, UNIT, Subject, share_text
from evoloss.analysis.verdicts import RELATIVE, Answer, is_bounded, shown, vector
from evoloss.syntax import Node

SUNK = 1e-4  # of the way from no opinion to a risk that logits only approach as they grow


def optimum(subject: Subject) -> Answer:
    """The p of the right class at which the loss of a certain target is least."""
    verdict, evidence = subject.optimum.answer
    return verdict, f"p = {share_text(subject.optimum.share, subject.num_classes)}: {evidence}"


def monotone(subject: Subject) -> Answer:
    """Whether the loss never rises with p of the right class, the others with equal parts of the rest."""
    values = subject.on_line[0]
    lowest = np.minimum.accumulate(values)
    place = int(np.argmax(values - lowest))
    which = ", the logits of mean 0" if "z" in subject.sees else ""
    if values[place] - lowest[place] > RELATIVE * (1 + np.ptp(values)):
        start = int(np.argmin(values[: place + 1]))
        ends = [
            f"{shown(values[at])} at p = {share_text(subject.shares[at], subject.num_classes)}" for at in (start, place)
        ]
        return "refuted", f"rises from {ends[0]} to {ends[1]}{which}"
    if subject.sees == {"p"} and subject.ask("falls", subject.line(), "p"):
        return "proved", "the derivative is never above 0"
    if subject.sees == {"z"} and subject.falls(1.0) and subject.rises(0.0):
        return "proved", "falls with the right logit and rises with the others"
    return "checked", f"at {LINE_POINTS:,} points{which}"


def bounded(subject: Subject) -> Answer:
    """Whether the loss has bounds. It has if both f1 and f0 have."""
    if len(subject.sees) == 1 and all(
        is_bounded(subject.ask("bounded", subject.side(target))) for target in (1.0, 0.0)
    ):
        return "proved", f"largest of {_probed(subject)}: {shown(_probed_losses(subject).max())}"
    for formula, where in _lines(subject):
        answer = subject.ask("bounded", formula)
        if answer and not answer["bounded"]:
            return "refuted", f"{shown(answer['points'][-1][1])} {_place(where, answer)}"
    return "checked", f"at most {shown(_probed_losses(subject).abs().max())} on {_probed(subject)}"


def bounded_gradient(subject: Subject) -> Answer:
    """Whether the gradient by the logits has bounds.

    It is p_j*(h_j'(p_j) - sum_k p_k*h_k'(p_k)) with h = f1 or f0, and has bounds if p*f1'(p) and p*f0'(p) have.
    """
    longest = float(max(_probed_gradients(subject).norm(dim=1).max(), subject.on_line[2].max()))
    (name, times) = ("p", "p") if subject.sees == {"p"} else ("z", "1")
    if len(subject.sees) == 1:
        answers = [subject.ask("bounded slope", subject.side(target), name, times) for target in (1.0, 0.0)]
        if all(map(is_bounded, answers)):
            return "proved", f"longest of {_probed(subject)}: {shown(longest)}"
    for formula, where in _lines(subject):
        variable, times = ("p", "p*(1 - p)") if "p" in names(formula) else (next(iter(names(formula))), "1")
        answer = subject.ask("bounded slope", formula, variable, times)
        if answer and not answer["bounded"]:
            return "refuted", f"derivative by the logit {shown(answer['points'][-1][1])} {_place(where, answer)}"
    return "checked", f"at most {shown(longest)} on {_probed(subject)}"


def _lines(subject: Subject) -> list[tuple[Node, str]]:
    """Ways to the ends of what can be predicted, as formulas, and what their variable is."""
    if subject.sees == {"p"}:
        others = ", the others equal"
        return [(subject.line(), f"p of the right class{others}"), (subject.line(False), f"p of a wrong class{others}")]
    sides = (
        [] if subject.sees != {"z"} else [(subject.side(1.0), "the right logit"), (subject.side(0.0), "a wrong logit")]
    )
    return [*sides, (subject.logit_line(), "the right logit minus the others")]


def _place(where: str, answer: Mapping[str, Any]) -> str:
    name, _, rest = where.partition(",")
    return f"at {name} = {answer['points'][-1][0]:g}{',' if rest else ''}{rest}, and on without limit"


def _probed(subject: Subject) -> str:
    return f"{len(subject.predictions):,} probes"


def _probed_losses(subject: Subject) -> Tensor:
    with torch.no_grad():
        return subject.risk.losses(subject.predictions)


def _probed_gradients(subject: Subject) -> Tensor:
    """[N, K], of probes under labels in turn."""
    labels = torch.arange(len(subject.predictions)) % subject.num_classes
    return subject.risk.gradients(subject.predictions, one_hot(labels, subject.num_classes))[1]


def shift_invariant(subject: Subject) -> Answer:
    """Whether the loss stays the same if a number is added to all logits."""
    if "z" not in subject.sees:
        return "proved", "the loss sees the logits through their softmax alone"
    logits = subject.predictions
    with torch.no_grad():
        before, after = (subject.risk.losses(logits + shift)[:, 0] for shift in (0.0, 1.0))
    place = _first((after - before).abs() / (1 + before.abs()))
    if abs(after[place] - before[place]) > RELATIVE * (1 + abs(before[place])):
        plain = f"{shown(before[place])} at logits {vector(logits[place])} of which the first is right"
        return "refuted", f"{plain}, {shown(after[place])} with 1 added to each"
    return "checked", f"shifted by 1 at {_probed(subject)}"


def _first(differences: Tensor) -> int:
    """The first difference [N] that nobody overlooks, else the largest."""
    large = (differences > 0.01).nonzero()
    return int(large[0]) if len(large) else int(differences.argmax())


def proper(subject: Subject) -> Answer:
    """Whether p = q minimizes the expected loss under q (Gneiting and Raftery 2007, doi:10.1198/016214506000001437).

    It does if f1 and f0 are convex and p*f1'(p) + (1 - p)*f0'(p) is constant: then p = q is stationary on the simplex.
    """
    shares = subject.minima.shares
    logits, risks = subject.minima.best
    own = torch.tensor([_risk_of_shares(subject, row) for row in shares])
    place = int((own - risks).argmax())
    if own[place] - risks[place] > RELATIVE * (1 + abs(own[place])):
        honest, better = vector(shares[place]), vector(logits[place].softmax(0))
        known = f"of classes with probabilities {honest} the expected loss is {shown(own[place], 6)} at p = the same"
        return "refuted", f"{known}, {shown(risks[place], 6)} at p = {better}"
    if subject.sees == {"p"} and _is_stationary(subject):
        right, wrong = subject.side(1.0), subject.side(0.0)
        weak = {side: subject.ask("convex", formula) for side, formula in ((1, right), (0, wrong))}
        if all(weak.values()):
            strict = subject.ask("convex", right, True) or subject.ask("convex", wrong, True)
            why = "stationary at the true probabilities, and convex in p"
            return "proved", f"strictly: {why}" if strict else why
    return "checked", f"{subject.minima.descents} descents under {len(shares)} distributions found nothing lower"


def _is_stationary(subject: Subject) -> bool:
    """Whether p*f1'(p) + (1 - p)*f0'(p) is one number for all p: of two classes, the same for p and 1 - p."""
    return bool(
        subject.prover.ask("stationary", subject.side(1.0), {"p": UNIT}, subject.side(0.0), subject.num_classes == 2)
    )


def _risk_of_shares(subject: Subject, shares: Tensor) -> float:
    """The least risk of logits whose softmax is the shares: with z they may be shifted."""

    def risk(shift: float) -> float:
        with torch.no_grad():
            return float(subject.risk.risks(shares.log().unsqueeze(0) + shift, shares.unsqueeze(0)))

    if not subject.risk.sees_z:
        return risk(0.0)
    shifts = np.linspace(-20, 20, 161)
    best = shifts[int(np.argmin([risk(shift) for shift in shifts]))]
    return float(optimize.minimize_scalar(risk, bounds=(best - 0.25, best + 0.25), method="bounded").fun)


def calibrated(subject: Subject) -> Answer:
    """Whether the likeliest class has the largest p, alone, where the expected loss is least (Bartlett et al. 2006,
    doi:10.1198/016214505000000907; Tewari and Bartlett 2007, jmlr.org/papers/v8/tewari07a.html).
    """
    if subject.sees == {"p"} and _is_ordered(subject):
        return "proved", "of two classes, exchanging p in favor of the likelier one lowers the expected loss"
    shares = subject.minima.shares
    logits, risks = subject.minima.best
    for row, best, risk in zip(shares, logits, risks, strict=True):
        if counter := _miscalibrated(subject, row, best, float(risk)):
            return "refuted", counter
    return "checked", f"{subject.minima.descents} descents under {len(shares)} distributions"


def _is_ordered(subject: Subject) -> bool:
    """Whether f1 - f0 is larger at the smaller of two p: exchanged in favor of the likelier class, they cost less.

    Both have to be bounded below, so that the expected loss has a minimum at all.
    """
    right, wrong = subject.side(1.0), subject.side(0.0)
    least = [subject.ask("bounded below", side) for side in (right, wrong)]
    return all(least) and bool(subject.ask("ordered", ("sub", right, wrong)))


def _miscalibrated(subject: Subject, shares: Tensor, best: Tensor, risk: float) -> str:
    """An example where the likeliest class, the first, is not alone on top at the least risk; or nothing."""
    p = best.softmax(0)
    rival = int(p[1:].argmax()) + 1
    target = f"of classes with probabilities {vector(shares)}"
    with torch.no_grad():
        swapped, tied = best.clone(), best.clone()
        swapped[[0, rival]] = best[[rival, 0]]
        tied[[0, rival]] = best[[0, rival]].mean()
        exchanged, equal = (float(r) for r in subject.risk.risks(torch.stack([swapped, tied]), shares.repeat(2, 1)))
    margin = RELATIVE * (1 + abs(risk))
    if p[0] < p[rival] - TIED and exchanged > risk + margin:
        lower = f"the least expected loss found is {shown(risk, 6)}, at p = {vector(p)}"
        return f"{target} {lower}; with the likelier class in front it is {shown(exchanged, 6)}"
    if subject.risk.sees_z and (sunk := _sunk(subject, shares, torch.stack([best, swapped]), risk)):
        return f"{target} the expected loss sinks to {sunk}"
    if abs(p[0] - p[rival]) < TIED and equal <= risk + 1e-12 * (1 + abs(risk)):
        lowest = f"{target} the least expected loss found is {shown(equal, 6)}"
        return f"{lowest}, where two classes tie: p = {vector(tied.softmax(0))}"
    return ""


def _sunk(subject: Subject, shares: Tensor, logits: Tensor, risk: float) -> str:
    """Where all logits together lower the risk without end, and it no longer matters which of two classes is on top.

    Both predictions are logits [2, K], the better one first.
    """
    with torch.no_grad():
        start = float(subject.risk.risks(torch.zeros_like(shares)[None], shares[None])[0])
        for shift in (FARTHEST, -FARTHEST):
            better, worse = subject.risk.risks(logits + shift, shares.repeat(2, 1)).tolist()
            if better < risk and worse - better < SUNK * (start - better):
                ends = f"{shown(better)} as {shift:+g} is added to all logits"
                return f"{ends}, and to {shown(worse)} with the likeliest class below another"
    return ""


def noise_robust(subject: Subject) -> Answer:
    """Whether the losses of all labels add up to a constant (Ghosh et al. 2017, arXiv:1712.09482)."""
    with torch.no_grad():
        logits = torch.cat([torch.zeros_like(subject.predictions[:1]), subject.predictions])
        sums = subject.risk.losses(logits).sum(1)
    place = _first((sums - sums[0]).abs() / (1 + sums[0].abs()))
    if abs(sums[place] - sums[0]) > RELATIVE * (1 + abs(sums[0])):
        at = f"{shown(sums[place])} at p = {vector(logits[place].softmax(0))}"
        return "refuted", f"the losses of all labels add up to {shown(sums[0])} at uniform p, to {at}"
    count = float(subject.num_classes)
    both: Node = ("add", subject.side(1.0), ("mul", count - 1, subject.side(0.0)))
    constant = None
    if subject.sees == {"p"} and count > 2:
        slope = subject.ask("affine", both)
        constant = slope and count * slope[0] + slope[1]
    elif subject.sees == {"p"}:
        constant = subject.ask("constant", ("add", both, substitute(both, {"p": ("sub", 1.0, "p")})))
    elif subject.sees == {"z"}:
        constant = subject.ask("constant", both)
        constant = None if constant is None else count * constant
    if constant is not None:
        return "proved", f"the losses of all labels add up to {shown(constant)} whatever is predicted"
    return "checked", f"the losses of all labels add up to {shown(sums[0])} on {_probed(subject)}"
