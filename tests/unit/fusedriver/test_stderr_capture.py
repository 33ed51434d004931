import os

from oscirc_fusedriver.stderr_capture import captured_stderr


def test_what_c_code_writes_is_heard(capfd):
    with captured_stderr() as said:
        os.write(2, b"fusermount3: no\n")
        assert said() == "fusermount3: no"
    assert capfd.readouterr().err == ""


def test_what_nobody_asked_for_is_passed_on(capfd):
    with captured_stderr():
        os.write(2, b"a warning\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "a warning\nafter\n"
