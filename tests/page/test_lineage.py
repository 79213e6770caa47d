from evoloss.page.lineage import ancestors, lanes
from evoloss.records import Candidate


def born(key, generation, *parents, name=""):
    return Candidate(key, f"cls({key})", 1, "classification", name, generation, parents)


#  s --- a --- c --- w        w descends from c and b; b from t and, again, from s
#  t --------- b -----/
FAMILY = [
    born("s", 0, name="ce"),
    born("t", 0, name="ngl"),
    born("a", 1, "s"),
    born("b", 2, "t", "s"),
    born("c", 2, "a"),
    born("w", 3, "c", "b"),
    born("stranger", 3, "t"),
]


def test_all_ancestors_are_found_the_oldest_first():
    assert list(ancestors(FAMILY, "w")) == ["s", "t", "a", "b", "c", "w"]
    assert list(ancestors(FAMILY, "s")) == ["s"]
    assert ancestors(FAMILY, "nobody") == {}


def test_an_ancestor_that_is_not_known_is_left_out():
    assert list(ancestors([born("w", 3, "gone", "s"), born("s", 0)], "w")) == ["s", "w"]


def test_the_line_of_first_parents_runs_straight():
    placed = lanes(ancestors(FAMILY, "w"), "w")
    assert placed["w"] == placed["c"] == placed["a"] == placed["s"] == 0
    assert placed["b"] == placed["t"] != 0


def test_everyone_has_a_place_of_their_own():
    wide = [born("w", 9, "x0", "x1")]
    wide += [born(f"x{n}", 8 - n // 2, f"x{n + 2}", f"x{n + 3}") for n in range(14)] + [born("x14", 0), born("x15", 0)]
    wide += [born("x16", 0)]
    tree = ancestors(wide, "w")
    placed = lanes(tree, "w")
    assert placed.keys() == tree.keys()
    places = [(tree[key].generation, lane) for key, lane in placed.items()]
    assert len(set(places)) == len(places)
