"""Conditions on rows mean what they say, and what cannot be meant is refused with what could be."""

from __future__ import annotations

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.row_filters import RowCondition, matching_rows, parse_condition

COLUMNS = {
    "label": ["cat", "dog", None, "cat,dog", "Cat", "dog"],
    "split": ["train", "test", "train", None, "val", "train"],
    "path": ["pets/a.jpg", "pets/b/c.png", "x.jpg", "pets/[1].jpg", "pets/1.jpg", "y=z!.jpg"],
}


def rows(*texts, columns=COLUMNS):
    """Return the numbers of the rows that meet all conditions."""
    return np.flatnonzero(matching_rows([parse_condition(text) for text in texts], columns)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label=cat", RowCondition("label", ("cat",))),
        ("label!=cat", RowCondition("label", ("cat",), negated=True)),
        ("label=cat,dog", RowCondition("label", ("cat", "dog"))),
        ("label=", RowCondition("label", ("",))),
        ("path=a=b!=c", RowCondition("path", ("a=b!=c",))),
        (" split =train", RowCondition("split", ("train",))),
        ("path!= x", RowCondition("path", (" x",), negated=True)),
    ],
)
def test_conditions_are_read(text, expected):
    """The first equals sign divides, and an exclamation mark before it turns the condition round."""
    assert parse_condition(text) == expected
    assert parse_condition(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "label", "=cat", "!=cat", " =cat", "label<cat"])
def test_what_is_no_condition_is_refused(text):
    """Without a field and an equals sign there is an error that shows how it is done."""
    with pytest.raises(UsageError, match=r"label=cat"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["label=cat"], [0]),
        (["label=dog"], [1, 5]),
        (["label=dog,cat"], [0, 1, 5]),
        (["label=cat,dog"], [3]),  # this is a label as a whole
        (["label!=cat,dog"], [0, 1, 4, 5]),
        (["label!=dog"], [0, 3, 4]),
        (["label="], [2]),
        (["label=,Cat"], [2, 4]),
        (["label!="], [0, 1, 3, 4, 5]),
        (["label!=,cat"], [1, 3, 4, 5]),
        (["split=train", "label=dog"], [5]),
        (["split=train", "label=dog,cat", "path!=y*"], [0]),
        (["split=test", "split=train"], []),
        (["path=pets/*.jpg"], [0, 3, 4]),
        (["path=pets/*"], [0, 1, 3, 4]),
        (["path!=pets/*"], [2, 5]),
        (["path=pets/[1].jpg"], [3]),  # a file is called so
        (["path=pets/[12].jpg"], [4]),
        (["path=?.jpg"], [2]),
        (["path=y=z!.jpg"], [5]),
        (["label=c*"], [0, 3]),
        (["path=x.jpg,pets/b/*"], [1, 2]),
    ],
)
def test_rows_that_match(texts, expected):
    """Each condition selects the rows worked out by hand, and several select those that meet all."""
    assert rows(*texts) == expected


def test_empty_text_is_no_value():
    """A column may have empty texts for rows without a value."""
    columns = {"label": ["", "a", None]}
    assert rows("label=", columns=columns) == [0, 2]
    assert rows("label=a", columns=columns) == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("labels=cat", "no field 'labels'; there are label, split, path"),
        ("label=dgo", "no label is 'dgo'; did you mean 'dog'"),
        ("label=DOG", "no label is 'DOG'; did you mean 'dog'?"),
        ("label=cat,zebra", "no label is 'zebra'; there are Cat, cat, cat,dog, dog"),
        ("label!=zebra", "no label is 'zebra'"),
        ("path=cars/*", "no path fits 'cars/*'"),
        ("path=qqqqqqq", "pets/b/c.png, x.jpg and 1 more"),
        ("path=", "every image has a path"),
    ],
)
def test_what_is_not_there_is_named(text, message):
    """Fields and values that do not exist are refused, with those that are near or the first few."""
    with pytest.raises(UsageError) as caught:
        rows(text)
    assert message in str(caught.value)


def test_a_field_without_values_is_refused():
    """Where no row has a value, none can be asked for."""
    with pytest.raises(UsageError, match="no image has a split"):
        rows("split=train", columns={"split": [None, None]})


@pytest.mark.parametrize("columns", [{}, {"a": ["x"], "b": ["x", "y"]}])
def test_columns_must_fit_each_other(columns):
    """Without columns, or with columns of several lengths, the number of rows is unknown."""
    with pytest.raises(UsageError, match="equally long"):
        matching_rows([], columns)


def test_conditions_agree_with_a_plain_loop():
    """On random rows, a list of values and its opposite select what a loop over the rows selects."""
    random = np.random.default_rng(0)
    column = [random.choice(["a", "b", "c", "d"]) if random.random() > 0.2 else None for _ in range(300)]
    found = rows("label=b,d", columns={"label": column})
    others = rows("label!=b,d", columns={"label": column})
    assert found == [row for row, value in enumerate(column) if value in ("b", "d")]
    assert others == [row for row, value in enumerate(column) if value in ("a", "c")]
