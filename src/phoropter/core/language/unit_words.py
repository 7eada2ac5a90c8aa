"""The name of an independent unit (people, births, hospitals) in singular and plural, for sentences."""

from __future__ import annotations

from dataclasses import dataclass

_IRREGULAR = {
    **{"person": "people", "child": "children", "man": "men", "woman": "women", "mouse": "mice", "foetus": "foetuses"},
    **{"fetus": "fetuses", "series": "series", "sheep": "sheep", "fish": "fish", "foot": "feet", "tooth": "teeth"},
    **{"biopsy": "biopsies", "nucleus": "nuclei", "specimen": "specimens"},
}
_SINGULAR = {plural: singular for singular, plural in _IRREGULAR.items()}


@dataclass(frozen=True)
class UnitWord:
    """A noun in both numbers.

    >>> UnitWord("person", "people").count(1), UnitWord("person", "people").count(1200)
    ('1 person', '1,200 people')
    """

    singular: str
    plural: str

    def count(self, number: int) -> str:
        """The number with the noun in the number that belongs to it."""
        return f"{number:,} {self.singular if number == 1 else self.plural}"

    @property
    def written(self) -> str:
        """Both, as `parse_unit_word` reads them: `person/people`."""
        return f"{self.singular}/{self.plural}"


def parse_unit_word(text: str) -> UnitWord:
    """A noun in either number, or `singular/plural` where the rule below does not make it → both.

    Raises ValueError for text that is no noun.

    >>> parse_unit_word("people"), parse_unit_word("hospital"), parse_unit_word("lens/lenses")  # doctest: +NORMALIZE_WHITESPACE
    (UnitWord(singular='person', plural='people'), UnitWord(singular='hospital', plural='hospitals'),
     UnitWord(singular='lens', plural='lenses'))
    """
    words = [part.strip() for part in text.split("/")]
    if len(words) > 2 or not all(word and word.replace(" ", "").replace("-", "").isalpha() for word in words):
        raise ValueError(f"{text!r} is no noun; expected one such as people or hospital, or both numbers as in lens/lenses")
    if len(words) == 2:
        return UnitWord(*words)
    start, space, last = words[0].rpartition(" ")
    singular, plural = _both_numbers(last)
    return UnitWord(start + space + singular, start + space + plural)


def _both_numbers(word: str) -> tuple[str, str]:
    """By the rules of English for regular nouns; a word that ends in a single s is taken for a plural."""
    if word in _IRREGULAR:
        return word, _IRREGULAR[word]
    if word in _SINGULAR:
        return _SINGULAR[word], word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y", word
    if word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2], word
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1], word
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return word, word[:-1] + "ies"
    return word, word + ("es" if word.endswith(("s", "sh", "ch", "x")) else "s")


UnitWords = tuple[UnitWord, UnitWord]  # of a group and of a site
GROUP, SITE, ROW = UnitWord("group", "groups"), UnitWord("site", "sites"), UnitWord("row", "rows")
RECORDING, PICTURE, FILE = UnitWord("recording", "recordings"), UnitWord("picture", "pictures"), UnitWord("file", "files")
RUN, SPLIT = UnitWord("run", "runs"), UnitWord("split", "splits")
