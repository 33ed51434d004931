"""Run by `test_mount_as_ordinary_user.py` as a user who is not root: a whole life of mounts; prints what it saw as JSON."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from oscirc_blockstore.errors import OscircError
from oscirc_fusedriver import control_client, records
from oscirc_fusedriver.failures import describe
from oscirc_fusedriver.unmounting import unmount

HERE = Path(__file__).parent


def mount(where: Path, **script) -> dict:
    done = subprocess.run(
        [sys.executable, HERE / "scripted_driver.py", where, json.dumps({"foreground": False, **script})],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def main() -> None:
    home, disk, foreign = map(Path, sys.argv[1:])
    seen: dict[str, object] = {"uid": os.geteuid()}
    place = home / "mnt"
    place.mkdir()
    try:
        seen["mounted"] = mount(place, disk=str(disk), resident=True)
        seen["equal"] = hashlib.sha256(Path(place / "disk.raw").read_bytes()).hexdigest()
        record = records.list_records()[0]
        seen["status"] = asdict(control_client.status(record))
        seen["unmounted"] = unmount(place).name
        mount(place, disk=str(disk), resident=True)
        records.list_records()[0].process.end(0)  # no time: SIGKILL right after SIGTERM
        mount(place, disk=str(disk), resident=True)
        record = records.list_records()[0]
        os.kill(record.pid, 9)
        record.process.wait(10)
        seen["cleaned"] = unmount(place).name
        seen["foreign"] = mount(foreign, disk=str(disk))
        seen["allow_other"] = mount(place, disk=str(disk), resident=True, options={"allow_other": True})
        unmount(place)
        seen["left"] = [each.mountpoint for each in records.list_records()]
    except OscircError as error:
        seen["error"] = describe(error)
    finally:
        print(json.dumps(seen))


if __name__ == "__main__":
    main()
