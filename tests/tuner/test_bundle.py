"""What a study takes along to a service, and that it stays where it is put."""

import string
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.bundle import MOST_FILES
from tuner.bundle import Bundle
from tuner.bundle import pack
from tuner.errors import UserError
from tuner.spec import load_study


def test_a_study_is_the_same_study_elsewhere(make_study, tmp_path):
    study = make_study(extra="", replace=("path: questions.jsonl", "path: ./questions.jsonl"))
    content = pack(study).content()
    bundle = Bundle.read(**content)
    assert sorted(bundle.files) == ["questions.jsonl", "space.yaml", "study.yaml"]
    moved = load_study(bundle.write(tmp_path / "elsewhere"))
    assert moved.fingerprint(moved.load_task()) == study.fingerprint(study.load_task())
    assert Bundle.read(**content).digest() == bundle.digest()


def test_what_lies_beside_the_studys_folder_keeps_its_place(make_study, tmp_path):
    study = make_study(folder="studies")
    (tmp_path / "spaces").mkdir()
    (tmp_path / "studies" / "space.yaml").rename(tmp_path / "spaces" / "space.yaml")
    path = study.path
    path.write_text(path.read_text().replace("space.yaml", "../spaces/space.yaml"))
    bundle = pack(load_study(path))
    assert set(bundle.files) == {"studies/study.yaml", "studies/questions.jsonl", "spaces/space.yaml"}  # fmt: skip
    assert bundle.place("../spaces/space.yaml") == "spaces/space.yaml"
    assert bundle.place("../spaces/other.yaml") is None
    assert bundle.place("/etc/passwd") is None
    assert bundle.place("../../../etc/passwd") is None


def test_every_file_that_a_task_names_goes_along(make_study):
    study = make_study(
        replace=("path: questions.jsonl,", "path: questions.jsonl, documents: pages.jsonl, instruction: /think,")
    )  # fmt: skip
    (study.path.parent / "pages.jsonl").write_text('{"title": "A", "text": "B."}\n')
    assert set(pack(study).files) == {"study.yaml", "space.yaml", "questions.jsonl", "pages.jsonl"}


def test_an_absolute_path_does_not_travel(make_study, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"question": "?", "answer": "!"}\n')
    study = make_study(replace=("path: questions.jsonl", f"path: {tmp_path}/q.jsonl"))
    with pytest.raises(UserError, match=r"task\.path: .* is an absolute path"):
        pack(study)


def test_a_file_that_is_not_there_is_named(make_study):
    study = make_study(replace=("path: questions.jsonl", "path: gone.jsonl"))
    with pytest.raises(UserError, match=r"task\.path: .*gone\.jsonl cannot be read"):
        pack(study)


@pytest.mark.parametrize(
    ("study", "files", "said"),
    [
        ("a", {"b": ""}, "has no file 'a'"),
        ("a", {"a": "no base64!"}, "not in base64"),
        ("../a", {"../a": ""}, "no plain relative path"),
        ("/a", {"/a": ""}, "no plain relative path"),
        ("a", {"a": "", "b//c": ""}, "no plain relative path"),
        ("a", {"a": "", "b\\c": ""}, "no plain relative path"),
        ("a", {"a": "", "b\n": ""}, "no plain relative path"),
        ("a", {"a": "", "x" * 201: ""}, "no plain relative path"),
        ("0", {str(n): "" for n in range(MOST_FILES + 1)}, f"and {MOST_FILES} are allowed"),
    ],
)
def test_what_is_no_bundle_is_refused(study, files, said):
    with pytest.raises(UserError, match=said):
        Bundle.read(study, files)


def test_a_file_cannot_be_another_ones_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        Bundle("a", {"a": b"", "a/b": b""}).write(tmp_path)


NAMES = st.text(st.sampled_from(string.ascii_letters + "./\\ \0\n~é"), max_size=12)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True))
def test_nothing_is_written_outside_of_the_folder(tmp_path_factory, names):
    top = tmp_path_factory.mktemp("bundle")
    folder = top / "inner"
    with suppress(UserError):
        Bundle(names[0], dict.fromkeys(names, b"x")).write(folder)
    outside = [path for path in top.rglob("*") if folder not in (path, *path.parents)]
    assert outside == []
    assert not Path("/x").exists()
