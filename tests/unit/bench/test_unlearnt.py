import os
import subprocess
import sys
from importlib import resources

import unlearnt

SAY = (
    "from importlib import resources; from oscirc_remote import foresight; "
    "print(resources.files('oscirc_remote').joinpath('boot_paths.txt').read_text(), foresight.__file__)"
)


def test_a_program_started_with_the_folder_on_its_path_has_the_other_list_and_all_else(tmp_path):
    room = unlearnt.room_with("usr/bin/other\n", tmp_path / "room")
    environment = {**os.environ, "PYTHONPATH": str(room)}
    said = subprocess.run(
        [sys.executable, "-c", SAY], env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.startswith("usr/bin/other\n")
    assert str(room) in said
    own = {path.name for path in unlearnt.ROOM.iterdir() if path.name != "__pycache__"}
    assert {path.name for path in (room / "oscirc_remote").iterdir() if path.name != "__pycache__"} == own


def test_a_list_is_learnt_from_others_only():
    assert unlearnt.others("debian12") == ["debian13", "debian14"]
    assert "debian13" not in unlearnt.others("debian13")
    assert resources.files("oscirc_remote").joinpath(unlearnt.LIST).is_file()
