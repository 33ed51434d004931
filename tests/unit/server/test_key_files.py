"""Keys as files, while another process renames them."""

from oscirc_blockstore import keys
from oscirc_server import key_files
from oscirc_server.key_files import key_path, load_signer, retire_file, signers_for, write_key
from oscirc_server.tuf_api import Role


def test_a_rotation_between_listing_and_reading_is_no_error(tmp_path, monkeypatch):
    """The old key is listed, retired, and then read: who signs finds the new one."""
    old, new = key_path(tmp_path, "snapshot"), key_path(tmp_path, "snapshot", "ab" * 16)
    for path in (old, new):
        write_key(path, keys.generate(), None)
    role = Role([load_signer(path, None).public_key.keyid for path in (old, new)][1:], 1)
    load, asked = load_signer, []

    def after_the_rotation(path, passphrase):
        asked.append(path)
        if len(asked) == 1:
            retire_file(path)
        return load(path, passphrase)

    monkeypatch.setattr(key_files, "load_signer", after_the_rotation)
    (signer,) = signers_for(tmp_path, "snapshot", role, None)
    assert signer.public_key.keyid in role.keyids
    assert asked == [old, new]


def test_two_rotations_retire_a_key_once(tmp_path):
    path = key_path(tmp_path, "timestamp")
    write_key(path, keys.generate(), None)
    retire_file(path)
    path.with_name(f"{path.name}.retired").unlink()
    retire_file(path)  # as the slower of two does
    assert list(tmp_path.iterdir()) == []
