"""What a run was made with, as far as a checkout can tell."""

import subprocess

from dima_isaac.run import versions


def test_changes_of_a_checkout_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "_ROOT", tmp_path)
    assert versions.versions()["git"] == "" and not versions.versions()["git_dirty"]
    git = lambda *words: subprocess.run(["git", "-C", tmp_path, *words], check=True, capture_output=True)
    git("init")
    (tmp_path / "code.py").write_text("lr = 1\n")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-m", "one")
    clean = versions.versions()
    assert (
        len(clean["git"]) == 40
        and not clean["git_dirty"]
        and clean["git_diff"] == "" == "".join(clean["git_untracked"])
    )
    (tmp_path / "new.py").touch()
    assert versions.versions()["git_untracked"] == ["new.py"] and versions.versions()["git_dirty"]
    (tmp_path / "code.py").write_text("lr = 2\n")
    assert versions.versions()["git_diff"].endswith("-lr = 1\n+lr = 2")
