"""The list's versions in memory, laid out for counting: what fits words and choices, and what each other choice gives.

Pure: made of values, asked for values; never changed once it is made, so that any thread may ask.

- A version fits if every word stands in its text or in its label, and if it has one of the chosen values of each
  facet. An image is found if one of its versions fits. All numbers are of images.
- Versions of one image that differ in label, place and date only are `Alike`: they are looked at once. `common` is the
  text that they share, `names` their labels; a word has no white space, so that where it is found in these it stands in
  one label.
- Lists run over `Alike`s by their number, in the order of the images' names; loops over them are C's wherever they can
  be (comprehensions, `map`, sets), since there may be 50,000.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from oscirc_server.services.facets import Facet, Fact

Words = Sequence[str]
Choice = Mapping[str, Collection[str]]


@dataclass(frozen=True, slots=True)
class Version:
    """A version as search reads it; `facts` are the columns of the facets, in their order."""

    label: str
    position: int
    released: str
    shown: bool
    text: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Alike:
    """Versions with one text and the same facts, in the order of release, and when the last of them was released."""

    common: str
    names: str
    facts: tuple[Fact, ...]
    labels: tuple[str, ...]
    positions: tuple[int, ...]
    released: tuple[str, ...]
    newest: str

    def fitting(self, words: Words) -> Sequence[int]:
        """The places of those that fit."""
        lacking = [word for word in words if word not in self.common]
        if not lacking:
            return range(len(self.labels))
        return [at for at, label in enumerate(self.labels) if all(word in label.lower() for word in lacking)]


@dataclass(frozen=True, slots=True)
class Image:
    """An image of the list: its name, label and place of the version that stands for it, its versions."""

    name: str
    shown: str
    position: int
    alike: tuple[Alike, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """An image that was found, how many of its versions fit, and the label of the newest of these."""

    image: Image
    matches: int
    newest: str


def image_of(name: str, versions: Iterable[Version]) -> Image | None:
    """An image out of its versions; None where none stands for it."""
    shown: Version | None = None
    kinds: dict[tuple[str, tuple[Fact, ...]], list[Version]] = {}
    for version in sorted(versions, key=lambda each: each.position):
        shown = version if version.shown else shown
        text = version.text.replace(f" {version.label} ", " ", 1)  # the label counts by itself
        kinds.setdefault((text, version.facts), []).append(version)
    if shown is None:
        return None
    alike = tuple(_alike(text, facts, each) for (text, facts), each in kinds.items())
    return Image(name, shown.label, shown.position, alike)


def _alike(text: str, facts: tuple[Fact, ...], versions: Sequence[Version]) -> Alike:
    return Alike(
        text.lower(),
        " ".join(version.label for version in versions).lower(),
        facts,
        tuple(version.label for version in versions),
        tuple(version.position for version in versions),
        tuple(version.released for version in versions),
        max(version.released for version in versions),
    )


class _Kinds(dict[Fact, int]):
    """The number of what a facet makes of a fact: facts with the same values have the same number."""

    def __init__(self, facet: Facet, today: str) -> None:
        super().__init__()
        self._facet, self._today = facet, today
        self.numbers: dict[tuple[str, ...], int] = {}

    def __missing__(self, fact: Fact) -> int:
        values = self._facet.values(fact, self._today)
        number = self[fact] = self.numbers.setdefault(values, len(self.numbers))
        return number


class _Column:
    """One facet's values of all `Alike`s, and for each of these its image and its values as one number, the pair."""

    def __init__(self, facet: Facet, facts: Iterable[Fact], image_of: Sequence[int], today: str) -> None:
        kinds = _Kinds(facet, today)
        self._kind_of = [kinds[fact] for fact in facts]
        self._kinds = list(kinds.numbers)
        self._size = max(len(self._kinds), 1)
        size = self._size
        self._pair_of = [image * size + kind for image, kind in zip(image_of, self._kind_of, strict=True)]
        self._is_plain = all(len(values) <= 1 for values in self._kinds)

    def having(self, found: Sequence[int], values: Collection[str]) -> list[int]:
        """Those that have one of these values."""
        wanted = frozenset(values)
        good = [not wanted.isdisjoint(kind) for kind in self._kinds]
        kind_of = self._kind_of
        return [at for at in found if good[kind_of[at]]]

    def count(self, found: Sequence[int]) -> Counter[str]:
        """How many images have each value among these."""
        size, kinds = self._size, self._kinds
        pairs = set(map(self._pair_of.__getitem__, found))
        several: dict[int, set[str]] = {}  # the values of images that are in several pairs, where these may share some
        if not self._is_plain:
            held = Counter(map(size.__rfloordiv__, pairs))
            several = {image: set() for image, times in held.items() if times > 1}
            for pair in [pair for pair in pairs if pair // size in several] if several else ():
                several[pair // size].update(kinds[pair % size])
                pairs.discard(pair)
        counted = Counter(chain.from_iterable(several.values()))
        for kind, images in Counter(map(size.__rmod__, pairs)).items():
            for value in kinds[kind]:
                counted[value] += images
        return counted


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What fits all that was asked, and for each chosen facet what fits all but the choice in it.

    `partly` holds those of which a word stands in labels only, so that not all of their versions need fit.
    """

    words: Words
    partly: Collection[int]
    found: Sequence[int]
    but_for: Mapping[str, Sequence[int]]


class Columns:
    """The images of the list on a day, as they were after the change `serial`."""

    def __init__(self, images: Iterable[Image], facets: Sequence[Facet], *, serial: int, today: str) -> None:
        self.serial, self.today = serial, today
        self.images = sorted(images, key=lambda image: image.name)
        self._names = [image.name for image in self.images]
        self._alike = [alike for image in self.images for alike in image.alike]
        self._image_of = [at for at, image in enumerate(self.images) for _ in image.alike]
        self._common = [alike.common for alike in self._alike]
        self._labels = [alike.names for alike in self._alike]
        self._columns = {
            facet.name: _Column(facet, [alike.facts[at] for alike in self._alike], self._image_of, today)
            for at, facet in enumerate(facets)
        }
        self._whole: dict[str, Counter[str]] = {}

    def narrow(self, words: Words, chosen: Choice) -> Narrowed:
        """What fits."""
        found, partly = self._holding(words)
        but_for: dict[str, Sequence[int]] = {}
        for facet, values in chosen.items():
            if values:
                column = self._columns[facet]
                but_for = {other: column.having(each, values) for other, each in but_for.items()}
                but_for[facet] = found
                found = column.having(found, values)
        return Narrowed(words, partly, found, but_for)

    def _holding(self, words: Words) -> tuple[Sequence[int], Collection[int]]:
        found: Sequence[int] = range(len(self._alike))
        common, labels = self._common, self._labels
        for word in words:
            found = [at for at in found if word in common[at] or word in labels[at]]
        lacks = Counter(at for word in words for at in found if word not in common[at])
        if len(words) > 1:  # each of two words may stand in the label of another version
            none = {at for at, lacking in lacks.items() if lacking > 1 and not self._alike[at].fitting(words)}
            found = [at for at in found if at not in none] if none else found
        return found, lacks

    def total(self, narrowed: Narrowed) -> int:
        """How many images were found."""
        return len(set(map(self._image_of.__getitem__, narrowed.found)))

    def counts(self, narrowed: Narrowed) -> dict[str, Counter[str]]:
        """For each facet its values, and how many images there are with each, all that was chosen elsewhere kept."""
        return {facet: self._count(facet, narrowed.but_for.get(facet, narrowed.found)) for facet in self._columns}

    def _count(self, facet: str, found: Sequence[int]) -> Counter[str]:
        if len(found) < len(self._alike):
            return self._columns[facet].count(found)
        if facet not in self._whole:
            self._whole[facet] = self._columns[facet].count(found)
        return self._whole[facet]

    def by_name(self, narrowed: Narrowed, after: str) -> list[int]:
        """The images that were found and come after a name, by name."""
        first = bisect_right(self._names, after) if after else 0
        return [at for at in sorted(set(map(self._image_of.__getitem__, narrowed.found))) if at >= first]

    def by_date(self, narrowed: Narrowed, after: tuple[str, str] | None) -> list[tuple[str, int]]:
        """Dates and images that were found, the newest first and then by name, after a date and a name."""
        newest: dict[int, str] = {}
        for at in narrowed.found:
            image, alike = self._image_of[at], self._alike[at]
            date = alike.newest
            if at in narrowed.partly:
                date = max(alike.released[place] for place in alike.fitting(narrowed.words))
            if date >= newest.get(image, ""):
                newest[image] = date
        order = sorted(sorted(newest), key=newest.__getitem__, reverse=True)
        if after is not None:
            date, name = after
            first = bisect_right(self._names, name)
            order = [at for at in order if newest[at] < date or (newest[at] == date and at >= first)]
        return [(newest[at], at) for at in order]

    def matches(self, narrowed: Narrowed, images: Iterable[int]) -> list[Match]:
        """These images, and what fits of each."""
        mine: dict[int, list[Alike]] = {at: [] for at in images}
        image_of = self._image_of
        for at in narrowed.found:
            if image_of[at] in mine:
                mine[image_of[at]].append(self._alike[at])
        made = []
        for image, some in mine.items():
            fits = [(alike.positions[at], alike.labels[at]) for alike in some for at in alike.fitting(narrowed.words)]
            made.append(Match(self.images[image], len(fits), max(fits)[1]))
        return made
