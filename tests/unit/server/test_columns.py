"""The list in memory: whatever is asked, it answers as one who looks at every version, one after the other."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscirc_server.models import VersionRow
from oscirc_server.services.columns import Columns, Version, image_of
from oscirc_server.services.facets import Facet, as_it_is

TODAY = "2026-11-26"


def at_least(fact, _today):
    """A facet of which a version may have several values."""
    return tuple(str(size) for size in (1, 2, 4) if fact is not None and fact <= size)


def state_of(fact, today):
    """A facet whose values depend on the day."""
    return () if not fact else ("ended",) if fact < today else ("supported",)


FACETS = (
    Facet("family", "System", "", VersionRow.family),
    Facet("memory", "Memory", "", VersionRow.minimum_memory_mib, at_least),
    Facet("support", "Support", "", VersionRow.changelog, state_of),
)

labels = st.sampled_from(["1.0", "1.10", "2.0", "10", "rc1", "debian"])
facts = st.tuples(
    st.sampled_from(["", "debian", "arch linux"]),
    st.sampled_from([None, 1, 2, 4, 8]),
    st.sampled_from(["", "2026-11-25", "2026-11-26", "2030-01-01"]),
)


@st.composite
def images(draw):
    made = {}
    for name in draw(st.lists(st.sampled_from(["a/1", "a/deb", "a-b/x", "b/1.0", "c/10"]), unique=True)):
        versions = []
        for position, label in enumerate(draw(st.lists(labels, unique=True, min_size=1, max_size=5))):
            some = draw(facts)
            text = f"{name} {label} {some[0]} Größe".lower()
            day = draw(st.integers(1, 3))
            versions.append(Version(label, position, f"2026-01-0{day}T00:00:00Z", shown=False, text=text, facts=some))
        shown = draw(st.integers(0, len(versions) - 1))
        versions[shown] = replace(versions[shown], shown=True)
        made[name] = draw(st.permutations(versions))
    return made


words = st.lists(
    st.sampled_from(["1", "0", "1.0", "deb", "debian", "linux", "/", "größe", "rc1", "c", "x"]), max_size=3
)
chosen = st.fixed_dictionaries(
    {},
    optional={
        "family": st.lists(st.sampled_from(["debian", "arch linux", "none"]), max_size=2),
        "memory": st.lists(st.sampled_from(["1", "2", "4"]), max_size=2),
        "support": st.lists(st.sampled_from(["ended", "supported"]), max_size=2),
    },
)


def columns_of(made, today=TODAY):
    built = [image_of(name, versions) for name, versions in made.items()]
    return Columns(built, FACETS, serial=1, today=today)


def fits(version, asked, choice):
    values = {facet.name: facet.values(fact, TODAY) for facet, fact in zip(FACETS, version.facts, strict=True)}
    return all(word in version.text for word in asked) and all(
        set(values[facet]) & set(some) for facet, some in choice.items() if some
    )


def naively(made, asked, choice):
    """Of each image that is found, the versions that fit, in the order of release."""
    found = {}
    for name in sorted(made):
        some = sorted((each for each in made[name] if fits(each, asked, choice)), key=lambda each: each.position)
        if some:
            found[name] = some
    return found


@settings(max_examples=300, deadline=None)
@given(images(), words, chosen)
def test_all_answers_are_those_of_one_who_looks_at_every_version(made, asked, choice):
    asked = list(dict.fromkeys(asked))
    columns, expected = columns_of(made), naively(made, asked, choice)
    narrowed = columns.narrow(asked, choice)
    assert columns.total(narrowed) == len(expected)
    order = columns.by_name(narrowed, "")
    assert [columns.images[at].name for at in order] == list(expected)
    newest = {name: max(each.released for each in some) for name, some in expected.items()}
    dated = [(date, columns.images[at].name) for date, at in columns.by_date(narrowed, None)]
    assert dated == [(newest[name], name) for name in sorted(sorted(newest), key=newest.get, reverse=True)]
    for match in columns.matches(narrowed, order):
        some = expected[match.image.name]
        assert (match.matches, match.newest) == (len(some), some[-1].label)
        assert match.image.shown == next(each.label for each in made[match.image.name] if each.shown)
    for facet, counted in columns.counts(narrowed).items():
        for value in {*counted, "1", "2", "4", "debian", "ended"}:
            if facet == "family" or value not in ("debian", "ended") or facet == "support":
                assert counted[value] == len(naively(made, asked, {**choice, facet: [value]})), (facet, value)


@settings(max_examples=100, deadline=None)
@given(images(), words, st.sampled_from(["", "a", "a-b/x", "a/1", "b/1.0", "z"]), st.integers(1, 3))
def test_a_place_splits_the_list_in_what_came_before_and_what_comes_after(made, asked, after, day):
    columns = columns_of(made)
    narrowed = columns.narrow(asked, {})
    names = [columns.images[at].name for at in columns.by_name(narrowed, after)]
    assert names == [name for name in naively(made, asked, {}) if name > after]
    place = (f"2026-01-0{day}T00:00:00Z", after)
    whole = [(date, columns.images[at].name) for date, at in columns.by_date(narrowed, None)]
    rest = [(date, columns.images[at].name) for date, at in columns.by_date(narrowed, place)]
    assert rest == [(date, name) for date, name in whole if date < place[0] or (date == place[0] and name > after)]


def version(label, *, shown=False, text="p/i {} debian", facts=("debian", 1, ""), position=0):
    return Version(label, position, "2026-01-01T00:00:00Z", shown, text.format(label), facts)


def test_two_words_in_the_labels_of_two_versions_find_nothing():
    columns = columns_of({"p/i": [version("rc1", shown=True), version("2.0", position=1)]})
    assert len(columns.images[0].alike) == 1
    assert columns.total(columns.narrow(["rc1", "2.0"], {})) == 0
    assert columns.total(columns.narrow(["rc", "1"], {})) == 1


def test_versions_that_differ_in_nothing_that_is_asked_for_are_looked_at_once():
    made = [version(f"1.{number}", position=number, shown=number == 9) for number in range(10)]
    (image,) = columns_of({"p/i": made}).images
    assert [(len(alike.labels), alike.newest) for alike in image.alike] == [(10, "2026-01-01T00:00:00Z")]


def test_an_image_for_which_no_version_stands_is_not_listed():
    assert image_of("p/i", [version("1.0")]) is None


def test_what_depends_on_the_day_is_counted_for_that_day():
    made = {"p/i": [version("1.0", shown=True, facts=("", None, "2026-11-26"))]}
    counted = []
    for day in (TODAY, "2026-11-27"):
        columns = columns_of(made, day)
        counted.append(columns.counts(columns.narrow([], {}))["support"])
    assert counted == [Counter(supported=1), Counter(ended=1)]


@pytest.mark.parametrize(("fact", "values"), [("x86_64", ("x86_64",)), ("", ()), (None, ()), (512, ("512",))])
def test_what_a_column_does_not_say_is_no_value(fact, values):
    assert as_it_is(fact, TODAY) == values
