"""The form of a token: told from typos at once, found by scanners."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscirc_blockstore import token_text

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@given(st.binary(min_size=32, max_size=32))
def test_every_secret_makes_a_whole_token_of_the_form_that_scanners_look_for(secret):
    text = token_text.from_secret(secret)
    assert token_text.FORM.fullmatch(text)
    assert len(text) == 56
    assert token_text.is_whole(text)


@given(st.binary(min_size=32, max_size=32), st.integers(7, 55), st.sampled_from(ALPHABET))
def test_one_wrong_character_is_told(secret, at, character):
    text = token_text.from_secret(secret)
    typo = text[:at] + character + text[at + 1 :]
    assert token_text.is_whole(typo) == (typo == text)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 55))
def test_a_token_that_was_cut_off_is_told(secret, length):
    assert not token_text.is_whole(token_text.from_secret(secret)[:length]) or length == 50


def test_tokens_of_the_first_form_are_whole():
    assert token_text.is_whole("oscirc_" + "aB3_-" * 8 + "abc")
    assert not token_text.is_whole("oscirc_" + "aB3_-" * 8 + "ab")


@pytest.mark.parametrize(
    "text", ["", "oscirc_", "Oscirc_" + "a" * 49, "oscirc_" + "ä" * 49, "oscirc_" + "a" * 43 + "\n"]
)
def test_other_texts_are_not_whole(text):
    assert not token_text.is_whole(text)


def test_a_token_is_made_of_32_bytes():
    with pytest.raises(ValueError, match="32"):
        token_text.from_secret(bytes(31))
