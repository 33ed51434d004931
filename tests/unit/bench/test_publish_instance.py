import publish_instance


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


def test_times_that_grow_less_than_what_was_written_pass_and_others_do_not(monkeypatch):
    code, saved = judged(monkeypatch, [2.5, 4.0, 6.2, 8.0, 10.0], 6.4)
    assert (code, saved["passed"]) == (0, True)
    assert saved["seconds for each 100 MB written"].startswith("5.00, 4.00")
    assert judged(monkeypatch, [1.0, 2.0, 4.0, 8.0, 16.1], 4.0)[0] == 0
    assert judged(monkeypatch, [1.0, 2.0, 4.0, 8.0, 18.5], 4.0)[0] == 1


def test_a_disks_size_must_not_matter(monkeypatch):
    assert judged(monkeypatch, [3.5, 4.0, 5.0, 7.0, 11.0], 2.5)[0] == 1
