"""``featx compare``: the table, the commands to type, what is saved, refused, remembered and continued."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex

import numpy as np
import pytest
from gallery import TRAINED, make_gallery, run
from layered_stores import LABELS, layered, random_bytes, spoiled, with_copies, write_layers, write_patients

from featx.bundle import load_bundle
from featx.commands import compare as command
from featx.commands.layer_names import shown_name, typed_name
from featx.comparison import Comparison, running
from featx.heads import split_rows
from featx.store import FeatureStore
from featx.workflows import comparing

N_ROWS = len(LABELS)
KEYS = list(layered(LABELS))
SHORT = ("--heads", "ridge", "--scales", "zscore", "--reduces", "none", "--folds", 3, "--repeats", 1, "--jobs", 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of four layers and three classes; read only, but for journals beside it."""
    return write_layers(tmp_path_factory.mktemp("store") / "s.h5")


@pytest.fixture
def compared(monkeypatch):
    """The comparisons that the command makes, as objects."""
    made: list[Comparison] = []
    compare_store = comparing.compare_store

    def spy(*arguments, **options):
        made.append(compare_store(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(comparing, "compare_store", spy)
    return made


@pytest.fixture
def nothing_measured(monkeypatch):
    """Fail where something is measured."""
    monkeypatch.setattr(running, "_score_unit", lambda *_: pytest.fail("measured again"))


def untimed(values):
    """Return JSON values of a comparison without what a clock says, in an order of its own."""
    results = [
        {k: v for k, v in result.items() if k not in ("fit_seconds", "predict_ms")} for result in values["results"]
    ]
    return {**values, "results": sorted(results, key=str)}


def mark(comparison, result):
    """Return the first word of the line of a candidate."""
    if result is comparison.best:
        return "best"
    if result is comparison.cheapest:
        return "cheapest"
    name = "always" if result.is_baseline else shown_name(result.candidate.layer)
    return "=" if result.tied else name


def as_json(capsys, *arguments):
    """Return what a comparison prints with ``--json``."""
    assert run("compare", *arguments, "--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def test_the_table_is_the_comparison(store, tmp_path, compared, capsys):
    """Every candidate has a line with its own numbers, the best first, and the baseline has words."""
    assert run("compare", store, *SHORT, "--heads", "ridge,knn", "--all", "--journal", tmp_path / "j") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    (comparison,) = compared
    n_train = N_ROWS - len(split_rows(LABELS).held_out)
    rows = f"{len(comparison.results)} candidates on {n_train} rows, 3 classes: {comparison.rows}"
    assert lines[0] == f"{rows}; 3 folds, 1 times, seed 0"
    header = "layer scale reduce head accuracy 95 % behind balanced F1 fit s ms bytes GMACs"
    assert " ".join(lines[2].split()) == header
    table = lines[3 : 3 + len(comparison.results)]
    for line, result in zip(table, comparison.results, strict=True):
        assert line.split()[0] == mark(comparison, result)
        name = "always the largest class" if result.is_baseline else shown_name(result.candidate.layer)
        assert name in line
        low, high = result.interval
        numbers = f"{result.accuracy:.3f}  {low:.3f} to {high:.3f}"
        assert numbers in line
        assert line.split()[-2:] == [str(result.cost.bytes_per_image), "0.000" if result.is_baseline else "?"]
        assert result.candidate.head in line.split()
        assert f"{result.macro_f1:.3f}" in line
    for finding in comparison.findings:
        assert finding in lines
    assert lines[-2 if comparison.cheapest is not comparison.best else -1].startswith("the best: featx fit-")


def test_a_long_table_is_cut_and_says_so(store, tmp_path, compared, capsys):
    """Twelve lines, the best of each layer, the cheapest and the baseline are shown; the others are counted."""
    heads = ("--heads", "ridge,knn,tree", "--scales", "zscore,none")
    assert run("compare", store, *SHORT, *heads, "--journal", tmp_path / "j") == 0
    out = capsys.readouterr().out
    (comparison,) = compared
    table = out.split("\n\n")[1].splitlines()[1:]
    (more,) = (line for line in table if line.startswith("and "))
    n_shown = table.index(more)
    assert 12 <= n_shown < len(comparison.results)
    assert more == f"and {len(comparison.results) - n_shown} more: --all, or --out FILE.csv"
    shown = "\n".join(table[:n_shown])
    assert all(f" {shown_name(key)} " in shown for key in KEYS)
    assert "always the largest class" in shown
    assert "cheapest" in shown or comparison.cheapest is comparison.best


def test_json_is_the_comparison_with_its_commands(store, tmp_path, compared, capsys):
    """``--json`` is one object: the comparison, and the command of the best and of the cheapest."""
    values = as_json(capsys, store, *SHORT, "--journal", tmp_path / "j")
    (comparison,) = compared
    commands = values.pop("commands")
    assert values == json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert commands["best"].startswith(f"featx fit-ridge {store} --layer blocks.2 --out ")
    assert set(commands) == {"best", "cheapest"}


@pytest.mark.parametrize("suffix", [".csv", ".md", ".json"])
def test_out_holds_what_the_object_says(suffix, store, tmp_path, compared, capsys):
    """``--out`` is the comparison in the format of its ending, in a folder that need not exist yet."""
    out = tmp_path / "new" / f"table{suffix}"
    assert run("compare", store, *SHORT, "--out", out, "--journal", tmp_path / "j") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"saved {out}"
    (comparison,) = compared
    text = out.read_text(encoding="utf-8")
    if suffix == ".json":
        assert json.loads(text) == json.loads(json.dumps(comparison.to_json()))
    elif suffix == ".md":
        assert text == comparison.to_markdown()
    else:
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [float(row["accuracy"]) for row in rows] == [result.accuracy for result in comparison.results]
        assert [row["layer"] for row in rows] == [result.candidate.layer for result in comparison.results]
        folds = [json.loads(row["fold_accuracies"]) for row in rows]
        assert folds == [list(result.fold_accuracies) for result in comparison.results]


def test_a_plot_is_a_picture(store, tmp_path, capsys):
    """``--plot`` writes a picture, and the report says where."""
    from PIL import Image

    out = tmp_path / "new" / "plot.png"
    assert run("compare", store, *SHORT, "--plot", out, "--journal", tmp_path / "j") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"saved {out}"
    with Image.open(out) as picture:
        assert min(picture.size) > 500
        assert len(picture.convert("L").getcolors()) > 20


def test_lists_say_what_is_compared(store, tmp_path, capsys):
    """``--layers``, ``--scales``, ``--reduces`` and ``--heads`` are all combined, with blanks or without."""
    arguments = ("--layers", "blocks.2, penultimate+blocks.0", "--scales", "none,l2", "--reduces", "none,pca:3")
    values = as_json(
        capsys,
        store,
        *arguments,
        "--heads",
        "ridge,knn",
        "--folds",
        2,
        "--repeats",
        1,
        "--jobs",
        1,
        "--journal",
        tmp_path / "j",
    )
    ways = {(r["layer"], r["scale"], r["reduce"], r["head"]) for r in values["results"] if r["head"] != "majority"}
    expected = {
        (layer, scale, reduce, head)
        for layer in ("blocks.2@avg", "penultimate@avg+blocks.0@avg")
        for scale in ("none", "l2")
        for reduce in ("none", "pca:3")
        for head in ("ridge", "knn")
    }
    assert ways == expected
    assert (values["n_folds"], values["n_repeats"]) == (2, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--heads", "cnn"), "unknown head 'cnn'; allowed are svm, svm-rbf, logistic"),
        (("--scales", "log"), "unknown scaler 'log'; allowed are none, zscore, minmax, l2, sqrt"),
        (("--reduces", "lda:3"), "unknown reducer 'lda:3'"),
        (("--budget", "huge"), "unknown budget 'huge'; allowed are quick, full"),
        (("--layers", "blocks.7"), "The store holds: blocks.0@avg"),
        (("--layers", "blocks.2+blocks.2"), "names the same features twice"),
        (("--layers", ","), "an empty list was given"),
        (("--heads", ""), "an empty list was given"),
        (("--folds", "1"), "--folds 1 is below 2"),
        (("--repeats", "0"), "--repeats 0 is below 1"),
        (("--jobs", "0"), "--jobs 0 starts no process"),
        (("--seed", "-1"), "--seed -1 is not from 0"),
        (("--held-out", "1"), "give a share such as 0.2"),
        (("--groups", "patient"), "is no CSV"),
        (("--out", "table.txt"), ".csv, .md or .json"),
        (("--plot", "plot.gif"), ".png, .svg or .pdf"),
        (("--out", "same.json", "--journal", "same.json"), "give two names"),
        (("--journal", "no/such/folder/j"), "cannot be used (No such file or directory)"),
    ],
)
def test_what_cannot_be_compared(options, said, tmp_path, monkeypatch, capsys):
    """A value that makes no sense is exit 2 with what is allowed; nothing is measured and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, "_score_unit", lambda *_: pytest.fail("measured before the error"))
    write_layers(tmp_path / "s.h5")
    before = set(tmp_path.iterdir())
    assert run("compare", "s.h5", "--jobs", 1, *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert set(tmp_path.iterdir()) == before


def test_stores_of_which_nothing_can_be_learned(tmp_path, capsys):
    """No labels, one class, and what is no store are exit 2; features of untrained weights are exit 3."""
    stores = (([-1] * 6, "none of the 6 rows"), ([0] * 6, "of the class 'a'"), ([0] * 6 + [1], "two rows"))
    for labels, said in stores:
        path = write_layers(tmp_path / f"{sum(labels)}.h5", labels)
        assert run("compare", path, *SHORT) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
    path = write_layers(tmp_path / "random.h5", fingerprint={**TRAINED, "weights_source": "random:0"})
    assert run("compare", path, *SHORT) == 3
    assert "--allow-random" in capsys.readouterr().err
    assert run("compare", tmp_path / "nothing.h5", *SHORT) == 2
    assert "There is no store" in capsys.readouterr().err


@pytest.mark.usefixtures("nothing_measured")
def test_existing_results_need_overwrite(store, tmp_path, capsys):
    """``--out`` and ``--plot`` that are there are exit 3 before anything is measured."""
    for option, name in (("--out", "t.csv"), ("--plot", "p.png")):
        (tmp_path / name).write_text("precious")
        assert run("compare", store, *SHORT, option, tmp_path / name) == 3
        assert "already there" in capsys.readouterr().err
        assert (tmp_path / name).read_text() == "precious"


def test_overwrite_replaces(store, tmp_path):
    """``--overwrite`` replaces what is at ``--out``."""
    out = tmp_path / "t.csv"
    out.write_text("old")
    assert run("compare", store, *SHORT, "--out", out, "--overwrite", "--journal", tmp_path / "j") == 0
    assert out.read_text().startswith("rank,layer")


def test_unlabelled_rows_and_copies_are_told(tmp_path, capsys):
    """Notes count the rows without a label and the copies; ``--allow-duplicates`` does not look for these."""
    labels = [*LABELS, -1, -1]
    digests = with_copies(random_bytes(len(labels), 16), [(1, 5), (2, 9)])
    path = write_layers(tmp_path / "s.h5", labels, digests=digests)
    assert run("compare", path, *SHORT) == 0
    out = capsys.readouterr().out
    assert "\nnote: 2 of the labelled images repeat another one (2 identical, 0 nearly), in 2 groups" in out
    assert "\nnote: 2 rows without a label left out\n" in out
    assert run("compare", path, *SHORT, "--allow-duplicates") == 0
    assert "repeat another" not in capsys.readouterr().out


def test_rows_that_fit_scores_on_take_no_part(tmp_path, capsys):
    """Noise in place of the held-out features changes no number; with ``--all-rows`` it does."""
    features, held_out = layered(LABELS), split_rows(LABELS).held_out
    paths = [write_layers(tmp_path / "a.h5"), write_layers(tmp_path / "b.h5", features=spoiled(features, held_out))]
    plain, noisy = (untimed(as_json(capsys, path, *SHORT)) for path in paths)
    assert plain["results"] == noisy["results"]
    assert plain["n_rows"] == N_ROWS - len(held_out)
    whole, spoilt = (as_json(capsys, path, *SHORT, "--all-rows") for path in paths)
    assert (whole["n_rows"], whole["rows"]) == (N_ROWS, "all labelled rows")
    assert whole["results"][0]["accuracy"] > spoilt["results"][0]["accuracy"] + 0.1


@pytest.mark.parametrize(
    ("options", "verb"),
    [
        (("--heads", "ridge", "--layers", "blocks.4+blocks.2,blocks.0"), "fit-ridge"),
        (("--heads", "svm", "--scales", "l2", "--reduces", "pca:2"), "fit-svm"),
        (("--heads", "svm-rbf", "--layers", "blocks.2"), "fit-svm --kernel rbf"),
        (("--heads", "logistic", "--layers", "blocks.2"), "fit-logistic"),
        (("--heads", "knn", "--scales", "none"), "fit-knn"),
        (("--heads", "tree", "--layers", "blocks.2"), "fit-tree --kind tree"),
        (("--heads", "boosting", "--layers", "blocks.2"), "fit-tree --kind boosting"),
    ],
)
def test_the_printed_commands_fit_just_that(options, verb, tmp_path, capsys):
    """The command of the best and of the cheapest runs as it stands, with the same layer, scale, reducer and head."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    path = write_layers(folder / "s.h5")
    values = as_json(capsys, path, "--folds", 2, "--repeats", 1, "--jobs", 1, *options)
    for name in ("best", "cheapest"):
        expected = values["results"][values[name]]
        typed = values["commands"][name]
        assert typed.startswith(f"featx {verb} '{path}'")
        assert run(*shlex.split(typed)[1:], "--json", "--overwrite", "--jobs", 1) == 0
        fitted = json.loads(capsys.readouterr().out)
        params = fitted["params"]
        got = {"layer": fitted["layer"], "head": fitted["head"], "scale": params["scale"], "reduce": params["reduce"]}
        assert got == {key: expected[key] for key in got}
        out = shlex.split(typed)[-1]
        assert out == str(path.with_suffix(".featx" if values["best"] == values[name] else ".cheapest.featx"))
        assert load_bundle(out).spec.key == expected["layer"]


def test_the_report_names_the_commands_that_json_has(store, capsys):
    """The lines at the end of the report are the commands of ``--json``."""
    commands = as_json(capsys, store, *SHORT)["commands"]
    assert run("compare", store, *SHORT) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"the best: {commands['best']}" in lines
    assert (f"the cheapest: {commands['cheapest']}" in lines) == (commands["cheapest"] != commands["best"])


def test_the_printed_commands_score_on_the_rows_left_out(tmp_path, capsys):
    """What says which rows are learned from goes into the command, or the fit would score on rows it was chosen by."""
    _, path = write_patients(tmp_path)
    rows = ("--seed", 3, "--held-out", 0.3, "--groups", "Patient", "--balanced", "--allow-duplicates")
    values = as_json(capsys, path, *SHORT, *rows)
    typed = values["commands"]["best"]
    said = "--seed 3 --held-out 0.3 --balanced --groups Patient --allow-duplicates --out"
    assert said in typed
    assert run(*shlex.split(typed)[1:], "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert evaluation["rows"] + values["n_rows"] == N_ROWS
    assert f"({evaluation['on']})" in values["rows"]


def test_the_printed_command_of_untrained_features_runs(tmp_path, capsys):
    """Where random weights were allowed, the command allows them, too."""
    path = write_layers(tmp_path / "s.h5", fingerprint={**TRAINED, "weights_source": "random:0"})
    typed = as_json(capsys, path, *SHORT, "--allow-random")["commands"]["best"]
    assert run(*shlex.split(typed)[1:]) == 0


def test_a_pooling_is_typed_where_the_store_has_two(tmp_path, capsys):
    """A layer with several pools in the store is named with its pool, though only one of them was compared."""
    names = ("blocks.0@avg", "blocks.2@avg", "blocks.2@max")
    path = write_layers(tmp_path / "s.h5", features=dict(zip(names, layered(LABELS).values(), strict=False)))
    typed = as_json(capsys, path, *SHORT, "--layers", "blocks.2@avg")["commands"]["best"]
    assert "--layer blocks.2@avg --out" in typed
    assert run(*shlex.split(typed)[1:]) == 0


def test_only_the_baseline_gives_no_command(store, tmp_path, capsys):
    """Asked for nothing but the majority class, there is nothing to fit."""
    journal = ("--journal", tmp_path / "j")
    values = as_json(capsys, store, *SHORT, "--heads", "majority", *journal)
    assert values["commands"] == {"best": None, "cheapest": None}
    assert [result["head"] for result in values["results"]] == ["majority"]
    assert run("compare", store, *SHORT, "--heads", "majority", *journal) == 0
    assert "featx fit-" not in capsys.readouterr().out


def test_a_second_run_measures_nothing(tmp_path, monkeypatch, capsys):
    """The journal beside the store gives identical numbers, times included."""
    path = write_layers(tmp_path / "my.photos.h5")
    first = as_json(capsys, path, *SHORT)
    assert (tmp_path / "my.photos.compare.jsonl").exists()
    monkeypatch.setattr(running, "_score_unit", lambda *_: pytest.fail("measured again"))
    assert as_json(capsys, path, *SHORT) == first


def test_an_interrupted_comparison_goes_on(tmp_path, monkeypatch, capsys):
    """Ctrl-C is exit 130; the next run measures only what is missing and gives what one run gives."""
    path, other = write_layers(tmp_path / "s.h5"), tmp_path / "other.jsonl"
    whole = as_json(capsys, path, *SHORT, "--journal", other)
    score_unit, counted = running._score_unit, []

    def counting(*arguments):
        if len(counted) == 7:
            raise KeyboardInterrupt
        counted.append(arguments[0])
        return score_unit(*arguments)

    monkeypatch.setattr(running, "_score_unit", counting)
    assert run("compare", path, *SHORT) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "run the same command again to continue" in err
    n_before = len(counted)
    n_units = (len(KEYS) + 2) * 3 + 3  # six layers and the baseline, which is not scaled, on three folds
    monkeypatch.setattr(running, "_score_unit", lambda *a: counted.append(a[0]) or score_unit(*a))
    continued = as_json(capsys, path, *SHORT)
    assert n_before == 7
    assert n_units - 1 <= len(counted) <= n_units + 1  # what was being measured may be measured again
    assert untimed(continued) == untimed(whole)


def test_where_nothing_can_be_kept_the_comparison_runs_all_the_same(tmp_path, monkeypatch, capsys):
    """Beside a store in a read-only folder there is no journal, and that is said once, on stderr."""
    path = write_layers(tmp_path / "s.h5")
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda file, mode: "compare" not in str(file) and file != tmp_path and access(file, mode)
    )
    assert run("compare", path, *SHORT) == 0
    out, err = capsys.readouterr()
    assert "the best: featx fit-ridge" in out
    assert err.count("cannot be written: an interrupted comparison will begin anew") == 1
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize("content", ["my diary\n", '{"format": "other"}\n', "\x00\x01"])
def test_a_file_that_is_no_journal_is_left_alone(content, store, tmp_path, capsys):
    """``--journal`` with a file that is something else is exit 2, and not a byte of it changes."""
    file = tmp_path / "diary"
    file.write_text(content)
    assert run("compare", store, *SHORT, "--journal", file) == 2
    assert "is not a journal of featx compare; name another file" in capsys.readouterr().err
    assert file.read_text() == content


def test_groups_of_a_column(tmp_path, capsys):
    """``--groups`` takes a column of the CSV; a wrong one is exit 2 and lists those there are."""
    _, path = write_patients(tmp_path)
    plain, grouped = (as_json(capsys, path, *SHORT, *options) for options in ((), ("--groups", "patient")))
    assert "groups kept whole" in grouped["rows"]
    assert "groups kept whole" not in plain["rows"]
    assert run("compare", path, *SHORT, "--groups", "doctor") == 2
    assert "path, label, patient" in capsys.readouterr().err


def test_a_reduced_store_is_compared(store, tmp_path, capsys):
    """The layers of a reduced store are compared by themselves; its printed command runs; joined ones are exit 2."""
    small = tmp_path / "small.h5"
    assert run("reduce", store, "--reduce", "pq:2", "--out", small) == 0
    capsys.readouterr()
    values = as_json(capsys, small, *SHORT)
    assert {result["layer"] for result in values["results"]} == set(KEYS)
    assert run(*shlex.split(values["commands"]["best"])[1:]) == 0
    assert run("compare", small, *SHORT, "--layers", "blocks.2+blocks.0") == 2
    assert "cannot stand side by side" in capsys.readouterr().err


def test_costs_are_those_of_layers(tmp_path, capsys):
    """On a real network, the GMACs of the table are the numbers of ``featx layers``."""
    gallery = make_gallery(tmp_path)
    capsys.readouterr()
    assert run("layers", "test_efficientnet", "--layers", "blocks.2,penultimate", "--json") == 0
    shown = {f"{row['layer']}@avg": row["gmacs"] for row in json.loads(capsys.readouterr().out)}
    values = as_json(capsys, gallery.store, *SHORT, "--allow-random")
    found = {result["layer"]: result["gmacs"] for result in values["results"] if result["head"] != "majority"}
    assert found == {**shown, "blocks.2@avg+penultimate@avg": shown["penultimate@avg"]}
    assert run("compare", gallery.store, *SHORT, "--allow-random") == 0
    assert f"{shown['penultimate@avg']:.3f}\n" in capsys.readouterr().out


def test_progress_goes_to_stderr(store, tmp_path, monkeypatch, capsys):
    """Without a terminal, a line now and then says how far it is."""
    monkeypatch.setattr("featx.commands.progress._SECONDS_BETWEEN_LINES", 0.0)
    assert run("compare", store, *SHORT, "--journal", tmp_path / "j") == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"{(len(KEYS) + 3) * 3}/{(len(KEYS) + 3) * 3} scores, 0.0 minutes left"


def test_names_in_tables_and_commands():
    """Tables are short, commands are exact."""
    assert shown_name("blocks.2@avg") == "blocks.2"
    assert shown_name("blocks.2@max") == "blocks.2@max"
    assert shown_name("blocks.2@avg+penultimate@avg") == "blocks.2+penultimate"
    assert shown_name("a@avg+b@avg+c@gem:3") == "a+…+c@gem:3 (3 layers)"
    keys = ["a@avg", "a@max", "b@gem:3", "c@avg"]
    assert typed_name("c@avg+a@max+b@gem:3", keys) == "c+a@max+b"


def test_every_head_has_a_verb_that_can_be_typed():
    """Each head that can be compared has a command, and no command is for a head that is not there."""
    from featx.commands.command_line import VERBS
    from featx.heads import HEADS

    assert set(command._VERBS) == set(HEADS) - {"majority"}
    assert {typed.split()[0] for typed in command._VERBS.values()} <= set(VERBS)


def test_the_store_is_closed_afterwards(store, tmp_path):
    """After a comparison the store can be opened for writing by others."""
    assert run("compare", store, *SHORT, "--journal", tmp_path / "j") == 0
    with FeatureStore(store) as opened:
        assert np.asarray(opened["blocks.2"]).shape == (N_ROWS, 6)
