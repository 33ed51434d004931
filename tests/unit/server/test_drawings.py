from oscirc_server.web.drawings import CANVAS, scaled_bars


def test_bars_are_to_one_scale_and_the_longest_fills_the_canvas():
    small, large = scaled_bars([("a", 250), ("b", 1000)])
    assert (small.width, large.width) == (CANVAS // 4, CANVAS)
    assert (small.percent, large.percent) == (25.0, 100.0)


def test_what_is_not_nothing_can_be_seen_and_nothing_is_not_drawn():
    least, none, _ = scaled_bars([("a", 1), ("b", 0), ("c", 1 << 40)])
    assert least.width > 0
    assert none.width == 0


def test_nothing_at_all_gives_no_division():
    assert [bar.width for bar in scaled_bars([("a", 0)])] == [0]
    assert scaled_bars([]) == []
