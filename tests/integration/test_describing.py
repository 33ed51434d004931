"""What a publisher says of an image, from the command to a reader's: signed, served, verified, and taken back."""

import random

import httpx
from support.commands import Workstation, add_publisher, initialise, serving

KEY = ("--key", "alice")
README = "\ufeff# Debian for looms\r\n\r\nPull the *lever*.\r\n"


def test_what_is_said_with_a_release_and_later_is_what_readers_are_shown(tmp_path):
    station = Workstation(tmp_path / "station")
    disk, readme = tmp_path / "disk.raw", tmp_path / "README.md"
    disk.write_bytes(random.Random(1).randbytes(65536))
    readme.write_bytes(README.encode())
    made = initialise(station, tmp_path / "repository")
    with serving(station, made):
        add_publisher(station, made, "alice")
        publish = ("publish", disk, "test:alice/debian@1", *KEY, "--block-size", "65536", "--os-version", "12")
        station.run(*publish, "--title", "Looms", "--kind", "server", "--end-of-life", "12=2001-02-03")
        describe = ("describe", "alice/debian", *KEY)
        said = station.json(*describe, "--title", "Debian for looms", "--readme", readme, "--licence", "MIT")
        assert said == {"role_version": 2, "changed": True}

        about = station.json("show", "alice/debian")["about"]
        assert about == {
            "title": "Debian for looms",
            "summary": "",
            "readme": "# Debian for looms\n\nPull the *lever*.",
            "licence": "MIT",
            "homepage": "",
            "kind": "server",
            "end_of_life": {"12": "2001-02-03"},
        }
        shown = station.run("show", "alice/debian")
        assert "  title     Debian for looms\n" in shown
        assert "  support   ended on 2001-02-03" in shown
        assert station.run("show", "alice/debian", "--readme") == about["readme"] + "\n"
        assert "Debian for looms" in station.run("images", "looms")
        assert "network" in station.refused("show", "alice/debian", "--offline", "--readme", code=3)
        base = made.url.partition("#")[0]
        assert "<em>lever</em>" in httpx.get(f"{base}/images/alice/debian").text

        station.run(*describe, "--title", "", "--kind", "", "--end-of-life", "12=")
        left = httpx.get(f"{base}/api/v1/images/alice/debian").json()["about"]
        assert (left["title"], left["kind"], left["end_of_life"], left["licence"]) == ("", "", {}, "MIT")
