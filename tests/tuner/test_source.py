from pathlib import Path
from typing import Annotated
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic import BeforeValidator
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from tuner.errors import SpecError
from tuner.source import Source


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Cat(Strict):
    lives: int = Field(ge=1)
    purrs: bool = True


class Boat(Strict):
    length_m: float
    sails: int = 0


def pick(value: Any) -> Any:
    return (Boat if "length_m" in value else Cat).model_validate(value)


class House(Strict):
    street: str
    number: int = Field(default=1, gt=0)
    names: tuple[bool | int | str, ...] = Field(default=("a",), min_length=1)
    cat: Cat | None = None
    things: dict[str, Annotated[Cat | Boat, BeforeValidator(pick)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_a_street(self) -> "House":
        if not self.street.strip():
            raise ValueError("nobody lives on a street without a name")
        return self


@pytest.fixture
def refusal(tmp_path):
    """The message, less the folder, and the hint, with which a file is refused."""

    def refuse(text: str | bytes, model: type[BaseModel] = House) -> tuple[list[str], str | None]:
        path = tmp_path / "f.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(SpecError) as caught:
            Source.read(path).validate(model)
        return str(caught.value).replace(f"{tmp_path}/", "").split("\n"), caught.value.hint

    return refuse


def test_a_file_becomes_the_model(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("street: Elm\nnames: [x, 2, true]\nthings:\n  ship: {length_m: 9}\n")
    house = Source.read(path).validate(House)
    assert (house.street, house.names) == ("Elm", ("x", 2, True))
    assert house.things == {"ship": Boat(length_m=9)}


def test_a_date_is_a_name_like_any_other(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("street: 2024-02-30\n")
    assert Source.read(path).validate(House).street == "2024-02-30"


@pytest.mark.parametrize("text", ["1e-3", "1E-3", ".1e-2", "0.001", "+1.e-03"])
def test_numbers_may_have_an_exponent(tmp_path, text):
    path = tmp_path / "f.yaml"
    path.write_text(f"street: Elm\nthings: {{a: {{length_m: {text}}}}}\n")
    assert Source.read(path).validate(House).things["a"].length_m == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("street: Elm\n\nnumber: many\n", "f.yaml:3: number: input should be a valid integer, not 'many'"),
        ("street: Elm\nnumber: 0\n", "f.yaml:2: number: input should be greater than 0, not 0"),
        ("number: 3\n", "f.yaml: street: is missing"),
        ("street: Elm\ncat:\n  purrs: false\n", "f.yaml:2: cat.lives: is missing"),
        ("street: Elm\ncat:\n  lives: 9\n  purrs: loudly\n", "f.yaml:4: cat.purrs: input should be a valid boolean, not 'loudly'"),
        ("street: Elm\nthings:\n  boat:\n    length_m: 1\n    sails: 1.5\n", "f.yaml:5: things.boat.sails: input should be a valid integer, not 1.5"),
        ("street: Elm\nnames: []\n", "f.yaml:2: names: tuple should have at least 1 item after validation, not 0"),
        ("street: ' '\n", "f.yaml: file: nobody lives on a street without a name"),
        ("street: Elm\nnames:\n- a\n- [b]\n", "f.yaml:4: names.1: input should be a valid boolean or a valid integer or a valid string, not ['b']"),
        ("street: Elm\nnames: [~]\n", "f.yaml:2: names.0: input should be a valid boolean or a valid integer or a valid string, not None"),
    ],
)  # fmt: skip
def test_a_mistake_says_line_key_and_what_was_given(refusal, text, message):
    said, hint = refusal(text)
    assert said == [message]
    assert hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("street: Elm\nnumbre: 3\n", "f.yaml:2: numbre: unknown key; known: street, number, names, cat, things", "did you mean number?"),
        ("street: Elm\nxyzzy: 3\n", "f.yaml:2: xyzzy: unknown key; known: street, number, names, cat, things", "remove it, or name a known one"),
        ("street: Elm\ncat: {lives: 1, purs: true}\n", "f.yaml:2: cat.purs: unknown key; known: lives, purrs", "did you mean purrs?"),
        # Of a union, the part that the rest of the keys belong to.
        ("street: Elm\nthings: {a: {length_m: 1, sail: 2}}\n", "f.yaml:2: things.a.sail: unknown key; known: length_m, sails", "did you mean sails?"),
        ("street: Elm\nthings: {a: {length_m: 1, purrs: true}}\n", "f.yaml:2: things.a.purrs: unknown key; known: length_m, sails", "remove it, or name a known one"),
        ("street: Elm\n7: 1\n", "f.yaml:2: 7: unknown key; known: street, number, names, cat, things", "remove it, or name a known one"),
    ],
)  # fmt: skip
def test_an_unknown_key_lists_the_known_ones_and_the_nearest(refusal, text, message, hint):
    found, said = refusal(text)
    assert found == [message]
    assert said == hint


def test_several_mistakes_are_all_told_at_once(refusal):
    found, hint = refusal("number: x\ncat: {lives: 0, tail: 1}\nnmaes: []\n")
    assert found == [
        "f.yaml: street: is missing",
        "f.yaml:1: number: input should be a valid integer, not 'x'",
        "f.yaml:2: cat.lives: input should be greater than or equal to 1, not 0",
        "f.yaml:2: cat.tail: unknown key; known: lives, purrs",
        "f.yaml:3: nmaes: unknown key; known: street, number, names, cat, things",
    ]
    assert hint == "did you mean names?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("street: a\nnumber: 1\nstreet: b\n", "f.yaml:3: street: stands here and on line 1"),
        ("cat:\n  lives: 1\n  lives: 2\n", "f.yaml:3: cat.lives: stands here and on line 2"),
        ("things: [{a: 1}, {b: 1, 'b': 2}]\n", "f.yaml:1: things.1.b: stands here and on line 1"),
        ("street: [a\nnumber: 1\n", "f.yaml:2: not YAML: expected ',' or ']', but got ':'"),
        ("street: a: b\n", "f.yaml:1: not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: not YAML: but found another document"),
        ("a: !thing 1\n", "f.yaml:1: not YAML: could not determine a constructor for the tag '!thing'"),
        ("a: !!int x\n", "f.yaml:1: not YAML: invalid literal for int() with base 10: 'x'"),
        ("a: &a [*a]\n", "f.yaml:1: not YAML: *a stands within what it names"),
        ("a: " + "[" * 3000 + "\n", "f.yaml:1: not YAML: nested more than 64 deep"),
        ("", "f.yaml: holds no keys"),
        ("# nothing\n", "f.yaml: holds no keys"),
        ("- a\n", "f.yaml: holds no keys"),
        ("just words\n", "f.yaml: holds no keys"),
        (b"street: \xff\n", "f.yaml: is not a text file in UTF-8"),
    ],
)  # fmt: skip
def test_what_is_no_file_of_keys_is_refused(refusal, text, message):
    assert refusal(text)[0] == [message]


def test_a_control_character_is_refused(refusal):
    found, _ = refusal(b"street: \x00\n")
    assert found[0].startswith("f.yaml: not YAML: unacceptable character")


def test_a_missing_file_and_a_folder_say_why(tmp_path):
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file"):
        Source.read(tmp_path / "none.yaml")
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        Source.read(tmp_path)


def test_a_part_keeps_its_place_in_the_file(tmp_path):
    path = Path(tmp_path / "f.yaml")
    path.write_text("street: Elm\npet:\n  name: cat\n  purrs: 3\n")
    part = Source.read(path).below("pet", without="name")
    with pytest.raises(SpecError) as caught:
        part.validate(Cat)
    assert str(caught.value).split("\n") == [
        f"{path}:2: pet.lives: is missing",
        f"{path}:4: pet.purrs: input should be a valid boolean, not 3",
    ]
