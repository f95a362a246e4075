"""The catalogue's facts: each row has a source, and every shape it knows has just the parameters that are published."""

from __future__ import annotations

import re
import urllib.parse

import pytest

from llm import catalogue
from llm.convert import families
from llm.corpora import downloads

ENTRIES = catalogue.entries()
SHAPED = [entry for entry in ENTRIES if entry.config]


def test_it_has_dozens_of_models_and_datasets_and_no_name_twice():
    kinds = [entry.kind for entry in ENTRIES]
    assert kinds.count("model") >= 60 and kinds.count("dataset") >= 25 and set(kinds) == {"model", "dataset"}
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_row_says_who_when_and_where_it_is_written(entry):
    address = urllib.parse.urlsplit(entry.source)
    assert address.scheme in ("https", "http") and address.netloc and not re.search(r"\s", entry.source)
    assert entry.organisation and 2000 < entry.year < 2100
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", entry.dated)
    assert entry.about


@pytest.mark.parametrize("entry", SHAPED, ids=lambda entry: entry.name)
def test_the_shape_has_the_published_number_of_parameters_and_context(entry):
    config = entry.shape()
    assert sum(config.parameters().values()) == entry.parameters
    assert config.context_length == entry.context
    assert entry.config["model_type"] == entry.architecture


def test_models_that_the_lab_opens_have_a_shape_and_others_say_why_not():
    models = [entry for entry in ENTRIES if entry.kind == "model"]
    assert {entry.architecture for entry in models if entry.opens} == set(families.FAMILIES)
    for entry in models:
        assert entry.opens == (entry.config is not None), entry.name
    with pytest.raises(ValueError, match="BLOOM is of the family bloom; the families drawn here are llama"):
        catalogue.find("BLOOM").shape()


def test_datasets_that_can_be_fetched_are_named_as_the_fetcher_names_them():
    fetched = [entry.here for entry in ENTRIES if entry.here]
    assert fetched and set(fetched) <= set(downloads.DOWNLOADS)
    assert all(entry.opens == bool(entry.here) for entry in ENTRIES if entry.kind == "dataset")


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no row called 'nothing'"):
        catalogue.find("nothing")
