import json
import shutil

import pandas as pd
import pytest

from evoloss import tokens

SEARCH = ("search", "--space", "smoke", "--workers", "0", "--generations", "1", "--population", "8", "--no-playoff")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A run directory of a search, made by the command line in this process."""
    from evoloss import cli

    path = tmp_path_factory.mktemp("replay") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evoloss", *SEARCH, "--quiet", "--out", str(path)])
        with pytest.raises(SystemExit):
            cli.main()
    return path


def rows(path):
    return pd.read_csv(path / "hall_of_fame.csv")


def test_every_row_has_a_token_of_what_the_row_says(searched):
    for _, row in rows(searched).iterrows():
        token = tokens.read(row["token"])
        assert token.expression == row["expression"]
        assert len(token.scores) == row["n_seeds"]
        assert sum(token.scores) / len(token.scores) == pytest.approx(row["select_acc"], abs=1e-6)
        assert (token.rung.rates[0], token.scale) == (row["lr"], row["scale"])
    assert (len(pd.read_csv(searched / "baselines.csv")["token"].dropna())) == 7


def test_each_of_them_is_confirmed(run_cli, searched):
    """On real trainings: the number of the table, to its last image."""
    table = rows(searched)
    for place in (0, len(table) - 1):
        code, out, err = run_cli("replay", table["token"][place])
        assert (code, err) == (0, "")
        assert out.splitlines()[0] == table["expression"][place]
        assert out.count("the same") == table["n_seeds"][place]
        assert "confirmed" in out
        assert "differ" not in out
    assert run_cli("replay", f"{searched}#1")[1] == run_cli("replay", table["token"][0])[1]


def test_another_number_is_denied_with_what_differs(run_cli, searched):
    token = tokens.read(rows(searched)["token"][0])
    flattered = token.model_copy(update={"scores": (token.scores[0] + 1 / 359,), "torch": "0.1"})
    code, out, err = run_cli("replay", tokens.write(flattered))
    assert code == 1
    assert "differs" in out
    assert err.startswith("evoloss: not confirmed: 1 of 1 trainings end otherwise; what differs: torch: 0.1 then, ")
    code, out, err = run_cli("replay", tokens.write(flattered), "--json")
    told = json.loads(out)
    assert (code, told["confirmed"], len(told["differs"])) == (1, False, 1)
    assert told["trainings"][0]["now"] == token.scores[0]


def test_a_row_without_a_token_says_how_to_get_one(run_cli, searched, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(searched, old)
    rows(searched).drop(columns="token").to_csv(old / "hall_of_fame.csv", index=False)
    code, _, err = run_cli("replay", f"{old}#1")
    assert code == 1
    assert "`evoloss resume RUN`" in err
    assert run_cli("resume", old, "--workers", "0", "--quiet")[0] == 0
    pd.testing.assert_frame_equal(rows(old), rows(searched))


@pytest.mark.parametrize("text", ["", "cls(-y*log(p))", "evoloss1.", "evoloss2.abc", "nowhere#1"])
def test_what_is_no_token_is_an_error_in_a_line(run_cli, text):
    code, out, err = run_cli("replay", text)
    assert (code, out, len(err.splitlines())) == (1, "", 1)


def test_the_committed_run_can_be_replayed(committed_run):
    for _, row in rows(committed_run).iterrows():
        token = tokens.read(row["token"])
        assert token.expression == row["expression"]
        assert sum(token.scores) / len(token.scores) == pytest.approx(row["select_acc"], abs=1e-6)
