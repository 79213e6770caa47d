from evoloss.climb import promoted
from evoloss.records import Candidate


def test_the_best_of_each_family_is_promoted_with_the_best_share():
    def contender(key, family, score, name=""):
        return Candidate(key, key, 1, family, name, rung=0, scores={0: score})

    fast = [contender(f"c{n}", "classification", 0.8 - n / 100) for n in range(8)]
    slow = [contender("m0", "metric", 0.30), contender("m1", "metric", 0.31)]
    named = contender("b", "center", 0.1, "center")
    chosen = promoted([*fast, *slow, named], 0.3)
    assert [candidate.key for candidate in chosen] == ["c0", "c1", "c2", "m1", "b"]
