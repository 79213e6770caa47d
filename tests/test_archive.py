import dataclasses
import sqlite3
from contextlib import closing

import pytest
import stubs
from hypothesis import given
from hypothesis import strategies as st

from evoloss.archive import Archive
from evoloss.errors import EvolossError
from evoloss.ranking import ranked
from evoloss.records import (
    Budget,
    Candidate,
    Cost,
    DataSpec,
    Evaluation,
    Generation,
    Job,
    Standing,
    Status,
    derive_seed,
    described,
    protocol,
)

DATA = DataSpec("digits")
SCREEN = Job("screen", "k", "cls(-y*log(p))", "mlp", 1)
TRAIN = Job("train", "k", "cls(-y*log(p))", "mlp", 1, Budget(100, 1, 1e-3))
ROW = Generation(0, 1, 2, 3, 4, 5, 0.9, None, "cls(-y*log(p))", 0.8, None, 1.5)


@pytest.fixture
def archive(tmp_path):
    with closing(Archive(tmp_path / "archive.sqlite", DATA)) as opened:
        yield opened


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(SCREEN, Status.OK, scale=1.25, fingerprint=(0.1, -2e-9), seconds=0.5),
        Evaluation(SCREEN, Status.OK, negate=True),
        Evaluation(SCREEN, Status.REJECTED, "flat: no gradient"),
        Evaluation(TRAIN, Status.OK, score=0.1 + 0.2, test_score=0.3),
        Evaluation(TRAIN, Status.OK, score=0.1, test_score=0.3, test_ece=0.1 + 0.2),
        Evaluation(TRAIN, Status.DIVERGED, "loss nan at step 10"),
    ],
)
def test_an_evaluation_comes_back_as_it_was(archive, evaluation):
    assert archive.find(evaluation.job) is None
    archive.add([evaluation])
    assert archive.find(evaluation.job) == evaluation


def test_the_cache_knows_loss_protocol_and_seed_apart(archive):
    archive.add([Evaluation(TRAIN, Status.OK, score=0.5)])
    others = [
        dataclasses.replace(TRAIN, key="other"),
        dataclasses.replace(TRAIN, seed=2),
        dataclasses.replace(TRAIN, proxy="inception"),
        dataclasses.replace(TRAIN, scale=2.0),
        dataclasses.replace(TRAIN, roles=("select", "test")),
        *(
            dataclasses.replace(TRAIN, budget=dataclasses.replace(TRAIN.budget, **change))
            for change in (
                {"samples": 99},
                {"epochs": 2},
                {"learning_rate": 2e-3},
                {"optimizer": "sgd"},
                {"flips": True},
            )
        ),
    ]
    assert [archive.find(job) for job in others] == [None] * len(others)


def test_a_time_limit_or_a_place_on_disk_is_no_part_of_the_protocol():
    slow = dataclasses.replace(TRAIN, budget=dataclasses.replace(TRAIN.budget, time_limit=1.0), time_limit=2.0)
    assert protocol(TRAIN, described(DATA)) == protocol(
        slow, described(dataclasses.replace(DATA, data_dir="/elsewhere"))
    )
    assert protocol(TRAIN, described(DATA)) != protocol(TRAIN, described(dataclasses.replace(DATA, label_noise=0.4)))


def test_seeds_differ_by_purpose_and_fit_torch():
    seeds = {derive_seed(0, purpose, number) for purpose in ("weights", "batches") for number in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(0, "weights") == 133441691874178746  # the same in every process and version


def test_generations_and_candidates_come_back_in_order(archive):
    first = Candidate(
        "a", "cls(-y*log(p))", 7, "classification", name="ce", scores={0: 0.5, 1: 0.75}, parents=("x", "y")
    )
    second = Candidate("b", "cls(-y*p)", 5, "classification", status=Status.DUPLICATE, fingerprint=(1.0,))
    archive.end_generation(ROW, [first, second], [["a", ["cls", "0.5 ClassField"]]])
    first.scores[2] = 0.25
    archive.end_generation(dataclasses.replace(ROW, generation=1), [first], [])
    assert archive.candidates() == [first, second]
    assert archive.candidates()[0].fitness == 0.5
    assert archive.generations() == [ROW, dataclasses.replace(ROW, generation=1)]
    assert archive.population() == []


SCORES = st.dictionaries(st.integers(0, 2), st.sampled_from([0.5, 0.625, 0.75, 1 / 3]), max_size=3)
CANDIDATES = st.lists(
    st.builds(
        dict,
        complexity=st.integers(1, 2),
        name=st.sampled_from(["", "", "", "ce"]),
        status=st.sampled_from([Status.OK, Status.OK, Status.DIVERGED, Status.DUPLICATE]),
        rung=st.integers(0, 1),
        scores=SCORES.map(lambda scores: dict(enumerate(scores.values()))),  # seeds come one after the other
    ),
    max_size=12,
)


@given(CANDIDATES, st.integers(0, 6))
def test_leaders_are_enough_to_know_the_best(drawn, count):
    candidates = [
        Candidate(key=f"{place}", expression="cls(-y*p)", family="", **row) for place, row in enumerate(drawn)
    ]
    with closing(Archive(":memory:", DATA)) as archive:
        archive.end_generation(ROW, candidates, [])
        leaders = archive.leaders(count)
    assert ranked(leaders)[:count] == ranked(candidates)[:count]
    assert [c for c in leaders if c.name] == [c for c in candidates if c.name]
    assert len([c for c in leaders if not c.name and len(c.scores) < 2]) <= count


def test_leaders_are_found_by_indexes(tmp_path):
    stubs.search(tmp_path / "archive.sqlite")
    with closing(Archive(tmp_path / "archive.sqlite", DATA)) as archive:
        queries = []
        archive._connection.set_trace_callback(queries.append)
        archive.leaders(5)
        archive._connection.set_trace_callback(None)
        (query,) = queries
        plan = [row[3] for row in archive._connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert "SCAN candidates USING INDEX by_score" in plan
    assert "SCAN candidates" not in plan


def test_an_archive_from_before_calibration_is_read_and_written(tmp_path):
    path = tmp_path / "archive.sqlite"
    with closing(Archive(path, DATA)) as archive:
        archive.add([Evaluation(TRAIN, Status.OK, score=0.5, test_score=0.25)])
        archive.set_standings([Standing("search", "k", "cls(-y*log(p))", select=(0.5,), test=(0.25,))])
        archive._connection.execute("DROP TABLE calibration")
        archive._connection.execute("""UPDATE standings SET row = json_remove(row, '$.calibration')""")
    calibrated = dataclasses.replace(TRAIN, seed=2)
    with closing(Archive(path, DATA)) as archive:
        assert archive.find(TRAIN) == Evaluation(TRAIN, Status.OK, score=0.5, test_score=0.25)
        assert archive.standings()["search"][0].calibration == ()
        archive.add([Evaluation(calibrated, Status.OK, score=0.5, test_score=0.25, test_ece=0.125)])
        assert archive.find(calibrated).test_ece == 0.125


def test_what_is_stored_survives_a_process_that_never_closes(tmp_path):
    path = tmp_path / "archive.sqlite"
    abandoned = Archive(path, DATA)
    abandoned.add([Evaluation(TRAIN, Status.OK, score=0.5, seconds=2.0)])
    with closing(Archive(path, DATA)) as reader:
        assert reader.find(TRAIN).score == 0.5
        assert reader.spent() == (1, 2.0)
    abandoned.close()


def test_read_only_nothing_is_made_and_nothing_written(tmp_path):
    path = tmp_path / "archive.sqlite"
    with pytest.raises(EvolossError, match="cannot be opened"):
        Archive(path, DATA, read_only=True)
    assert list(tmp_path.iterdir()) == []
    with closing(Archive(path, DATA)) as archive:
        archive.add([Evaluation(TRAIN, Status.OK, score=0.5, seconds=2.0)])
        with closing(Archive(path, DATA, read_only=True)) as reader:  # while the other may write
            assert reader.spent() == (1, 2.0)
            archive.add([Evaluation(dataclasses.replace(TRAIN, seed=2), Status.OK, score=0.5, seconds=3.0)])
            assert reader.spent() == (2, 5.0)
    before = path.read_bytes()
    with closing(Archive(path, DATA, read_only=True)) as reader, pytest.raises(sqlite3.OperationalError):
        reader.add([Evaluation(SCREEN, Status.OK)])
    assert [file.name for file in tmp_path.iterdir()] == ["archive.sqlite"]
    assert path.read_bytes() == before


def test_an_empty_file_is_no_archive_to_read(tmp_path):
    (tmp_path / "archive.sqlite").write_bytes(b"")
    with pytest.raises(EvolossError, match="expected the archive of a run"):
        Archive(tmp_path / "archive.sqlite", DATA, read_only=True)
    assert (tmp_path / "archive.sqlite").read_bytes() == b""


def test_costs_tell_what_opened_the_test_split(archive):
    played = Evaluation(dataclasses.replace(TRAIN, roles=("select", "test")), Status.OK, score=0.5, test_score=0.4)
    others = [Evaluation(SCREEN, Status.OK, seconds=0.5), Evaluation(TRAIN, Status.OK, score=0.5, seconds=2.0)]
    archive.add([*others, dataclasses.replace(played, seconds=4.0)])
    assert archive.costs() == [
        Cost("screen", False, 1, 0.5),
        Cost("train", False, 1, 2.0),
        Cost("train", True, 1, 4.0),
    ]


def test_rejections_are_counted_by_their_screen(archive):
    details = {"a": "flat: no gradient", "b": "flat: none", "c": "sign: learns when negated"}
    rejected = [
        Candidate(key, "cls(p)", 1, "classification", status=Status.REJECTED, detail=detail)
        for key, detail in details.items()
    ]
    archive.end_generation(ROW, [*rejected, Candidate("d", "cls(y)", 1, "classification")], [])
    assert archive.rejections() == {"flat": 2, "sign": 1}
