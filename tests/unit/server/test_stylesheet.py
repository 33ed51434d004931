"""The colours of both schemes can be read: WCAG 2.1's contrast of 4.5 for text on every ground that it stands on."""

import re

import pytest

from oscirc_server.web import rendering

TEXTS = ("text", "quiet", "accent", "warn")
GROUNDS = ("ground", "soft")


def schemes():
    blocks = re.findall(r":root \{([^}]*)\}", rendering.asset("catalog.css").decode())
    return [dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6});", block)) for block in blocks]


def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_contrast_is_counted_as_the_standard_does():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_stands_out_from_its_ground(scheme, text, ground):
    assert len(schemes()) == 2
    colours = schemes()[scheme]
    assert contrast(colours[text], colours[ground]) >= 4.5
