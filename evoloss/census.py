"""All losses that a search has met, and what became of them."""

from collections import Counter
from dataclasses import dataclass, field

from evoloss.archive import Archive
from evoloss.duplicates import Fingerprints
from evoloss.records import Candidate, Status


@dataclass
class Census:
    """Candidates by key; `changed` and `tally` are those of the generation that is under way.

    `rejected` counts the causes since this process began.
    """

    candidates: dict[str, Candidate] = field(default_factory=dict)
    by_name: dict[str, Candidate] = field(default_factory=dict)
    fingerprints: Fingerprints = field(default_factory=Fingerprints)
    changed: dict[str, Candidate] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)

    def restore(self, archive: Archive) -> None:
        """Take in the candidates of all finished generations."""
        for candidate in archive.candidates():
            self._enter(candidate)
            if candidate.fingerprint and (candidate.scores or candidate.status is not Status.DUPLICATE):
                self.fingerprints.add(candidate.key, candidate.fingerprint)

    def begin(self) -> None:
        """A generation begins: nothing has changed yet."""
        self.changed, self.tally = {}, Counter()

    def change(self, candidate: Candidate) -> None:
        """Enter a candidate, or note that a known one has changed."""
        self._enter(candidate)
        self.changed[candidate.key] = candidate

    def echo(self, key: str, original: str) -> None:
        """Note that a trained loss scores as another does on every seed. Its gradients stay known: they are its own."""
        candidate = self.candidates[key]
        candidate.status, candidate.detail = Status.DUPLICATE, original
        self.tally["duplicates"] += 1
        self.change(candidate)

    def _enter(self, candidate: Candidate) -> None:
        self.candidates[candidate.key] = candidate
        if candidate.name:
            self.by_name[candidate.name] = candidate

    def reject(self, cause: str) -> None:
        """Count a formula that is not worth training."""
        self.tally["rejected"] += 1
        self.rejected[cause] += 1

    def named(self, *names: str) -> list[Candidate]:
        """The hand-written losses of these names."""
        return [self.by_name[name] for name in names if name in self.by_name]

    def living(self) -> list[Candidate]:
        """Those that have a fitness."""
        return [candidate for candidate in self.candidates.values() if candidate.fitness is not None]
