from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic import ValidationError

from tuner.serving import Addressed
from tuner.serving import ModelSpec
from tuner.serving import Served
from workflows.config import ModelSettings

MODELS: TypeAdapter[dict[str, Served | Addressed]] = TypeAdapter(dict[str, ModelSpec])


def parse(model: Any) -> Served | Addressed:
    return MODELS.validate_python({"m": model})["m"]


def test_serve_or_an_address_decides_the_kind() -> None:
    served = parse({"serve": "llama.cpp", "weights": "smollm2-135m-instruct"})
    addressed = parse({"model": "hosted_vllm/llama", "api_base": "http://gpu1:8000/v1"})

    assert served == Served(serve="llama.cpp", weights="smollm2-135m-instruct")
    assert isinstance(addressed, Addressed)
    assert addressed.settings() == ModelSettings(
        model="hosted_vllm/llama", api_base="http://gpu1:8000/v1"
    )


def test_what_was_parsed_is_accepted_again() -> None:
    served = Served(serve="llama.cpp", weights="w.gguf")

    assert parse(served) is served


def test_both_kinds_carry_a_meter() -> None:
    assert parse({"model": "openai/x", "meter": "none"}).meter is not None
    assert parse({"serve": "llama.cpp", "weights": "w", "meter": {"cpu_estimate": {}}}).meter


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ({"serve": "vllm", "weights": "w"}, ("serve",), "'llama.cpp'"),
        ({"weights": "w"}, ("serve",), "required"),
        ({"serve": "llama.cpp"}, ("weights",), "required"),
        ({"serve": "llama.cpp", "weights": "w", "thread": 2}, ("thread",), "not permitted"),
        ({"serve": "llama.cpp", "weights": "w", "threads": "2"}, ("threads",), "integer"),
        ({"serve": "llama.cpp", "weights": "w", "port": 65536}, ("port",), "65535"),
        ({"model": "openai/x", "threads": 2}, ("threads",), "not permitted"),
        ({"model": "openai/x", "timeout_s": "5"}, ("timeout_s",), "number"),
        ({"api_base": "http://gpu1:8000/v1"}, ("model",), "required"),
        ("llama", (), "dictionary"),
    ],
)
def test_mistake_is_located_at_its_key_alone(
    model: Any, key: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(model)

    (error,) = caught.value.errors()
    assert error["loc"] == ("m", *key)
    assert message in error["msg"]
