"""When a mirror is struck, and which; nothing is mounted here."""

from dataclasses import dataclass

from survival_parts import Strike


@dataclass
class Passed:
    bytes_down: int


@dataclass(eq=False)
class FakeMirror:
    bytes_down: int = 0

    def passed(self):
        return Passed(self.bytes_down)


def test_the_one_in_use_is_struck_once_when_all_have_brought_enough():
    one, other = FakeMirror(), FakeMirror()
    struck = []
    strike = Strike((one, other), 100, struck.append)
    assert not strike()
    one.bytes_down, other.bytes_down = 30, 60
    assert not strike()
    one.bytes_down = 40
    assert strike()
    assert struck == [other]
    one.bytes_down = 1000
    assert strike()
    assert struck == [other]
    assert strike.hit is other
