"""What a docstring takes from elsewhere can be looked up: a source names a place, or says that the result is new."""

import inspect
import re

import pytest

import ipodyn

# A chapter, section, proposition or figure; for an article its year, which with title or volume is as far as it goes.
LOCATOR = re.compile(r"section on \w|Proposition \d|ch\. \d|figure \d|derived here|\((17|18|19|20)\d\d\)")


def documented():
    """name -> docstring of public functions, classes and their methods."""
    found = {}
    for module in (ipodyn, ipodyn.problems, ipodyn.recipes, ipodyn.data, ipodyn.plot):
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value) or not (value.__module__ or "").startswith("ipodyn"):
                continue
            found[f"{module.__name__}.{name}"] = inspect.getdoc(value) or ""
            if inspect.isclass(value):
                methods = {key: each for key, each in vars(value).items() if inspect.isfunction(each)}
                found |= {
                    f"{module.__name__}.{name}.{key}": inspect.getdoc(each) or "" for key, each in methods.items()
                }
    return found


SOURCED = {name: doc for name, doc in documented().items() if "Source:" in doc}


def test_there_are_sources():
    assert len(SOURCED) > 40 and {"ipodyn.contraction_bound", "ipodyn.fixed_point"} <= set(SOURCED)


@pytest.mark.parametrize("name", SOURCED)
def test_a_source_names_a_place(name):
    """Each work that is cited: up to a semicolon or the end of the sentence there is a place, a year, or our word."""
    source = " ".join(SOURCED[name].split("Source:")[1].split("\n\n")[0].split())
    assert LOCATOR.search(source), source
    if "2602.12180" in source:  # the paper is long: which part of it
        part = source[source.index("2602.12180") :]
        assert re.match(r"2602\.12180(\)?), (section on|Proposition)", part), source


@pytest.mark.parametrize("name", documented())
def test_nothing_refers_to_notes_that_readers_do_not_have(name):
    assert not re.search(r"\btheory (of Chen|§|\d)|theory\.md|\bF\d{1,2}\b(?!-)", documented()[name]), name
