import publish_instance
import pytest


def test_a_line_goes_through_points_that_are_on_one():
    constant, slope = publish_instance.line_through([(50e6, 5.5), (100e6, 6.0), (200e6, 7.0), (800e6, 13.0)])
    assert constant == pytest.approx(5.0)
    assert slope * 1e8 == pytest.approx(1.0)


def judged(monkeypatch, seconds, small_s):
    saved = {}
    monkeypatch.setattr(publish_instance, "save", lambda _name, figures: saved.update(figures))
    names = ("seconds_of_publishing", "base_bytes_read", "new_blocks", "new_nodes")
    found = {
        size: {
            "seconds": each,
            "changed_bytes": float(size),
            "uploaded_bytes": 0.8 * size,
            **dict.fromkeys(names, 1.0),
        }
        for size, each in zip(publish_instance.SIZES, seconds, strict=True)
    }
    small = {**found[publish_instance.TYPICAL], "seconds": small_s}
    flat = {"read_bytes": 1, "process_seconds": 9.0}
    code = publish_instance.judge({"data_bytes": 1}, found, small, flat, 1.0)
    return code, saved


def test_times_on_a_line_pass_and_one_that_is_off_it_does_not(monkeypatch):
    code, saved = judged(monkeypatch, [3.5, 4.0, 5.0, 7.0, 11.0], 5.2)
    assert (code, saved["passed"]) == (0, True)
    assert saved["seconds, whatever was written"] == 3.0
    assert judged(monkeypatch, [3.5, 4.0, 5.0, 7.0, 20.0], 5.2)[0] == 1


def test_a_disks_size_must_not_matter(monkeypatch):
    assert judged(monkeypatch, [3.5, 4.0, 5.0, 7.0, 11.0], 2.5)[0] == 1
