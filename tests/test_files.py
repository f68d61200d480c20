"""Files are written whole or not at all, and a full disk says so."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from vitlens.errors import SpaceError
from vitlens.files import differences, whole

FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    # As safetensors words it on a full file system.
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=["python", "safetensors"])
def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with whole(target) as new:
            new.write_text("half")
            raise error

    with pytest.raises(SpaceError, match=r"no space left to write .*a\.txt.*still stands"):
        write()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_another_error_stays_what_it_is(tmp_path):
    with pytest.raises(OSError, match="other"), whole(tmp_path / "a.txt"):
        raise PermissionError(errno.EACCES, "other")


def test_differences_name_entries_that_one_side_lacks():
    assert differences({"a": {"b": 1}}, {"a": {}}) == "a.b: 1 there, None now"
    assert differences({"a": [1, 2]}, {"a": [1, 2]}) == ""
