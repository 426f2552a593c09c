"""Who may ask what, and what a submission may say: the app in this process."""

import base64
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tuner.bundle import Bundle


def test_a_study_is_queued_and_begun(api):
    made = api.submit("small")
    assert made.status_code == 202, made.text
    assert made.json()["name"] == "small"
    assert made.json()["user"] == "local"
    api.reach("small", "running")
    (listed,) = api.ask("GET", "/studies").json()
    assert listed["state"] == "running"
    assert listed["trials"] == {}
    assert api.ask("GET", "/studies/small").json()["name"] == "small"


def test_what_runs_has_the_services_own_settings(api):
    api.submit("small")
    row = api.book.submission("small")
    as_run = api.engine.folders.submitted(row).with_name("as-run.yaml")
    content = yaml.safe_load(as_run.read_text())
    assert content["models"]["lb"]["max_retries"] == 1
    assert content["storage"] == api.service.storage_url


ADDRESS = 'api_base: "{}"'


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("openai/loopback", "openai/another", "models.lb: is none of this service's models, which are: lb, second, here"),
        ("127.0.0.1", "10.0.0.1", "models.lb: is none of"),
        ("lb: {model: openai/loopback", "lb: {endpoint: completion, model: openai/loopback", "models.lb: is none of"),
        ("search_space: ../spaces/space.yaml", "search_space: ../../../../etc/passwd", "search_space: '../../../../etc/passwd' is none of the files"),
        ("search_space: ../spaces/space.yaml", "search_space: /etc/passwd", "search_space: '/etc/passwd' is none of the files"),
        ("path: ../data/questions.jsonl", "path: /etc/passwd", "task.path: '/etc/passwd' is none of the files"),
        ("path: ../data/questions.jsonl", "path: ../../service.yaml", "task.path: '../../service.yaml' is none of the files"),
        ("name: small", "name: ..", "name: '..' is no name for a study"),
        ("name: small", "name: a/b", "name: 'a/b' is no name for a study"),
        ("racing: false", "racing: false\nwarm_start: [../other.yaml]", "takes over from its own studies only"),
        ("racing: false", "racing: false\nexecutor: {replay: /etc/passwd}", "executor.replay: '/etc/passwd' is none"),
        ("racing: false", "racign: false", "small.yaml:8: racign: unknown key"),
        ("examples: 8", "examples: 800", "800"),
    ],
)  # fmt: skip
def test_what_a_study_may_not_say_is_refused(api, old, new, said):
    bundle = api.bundle()
    text = bundle.files["studies/small.yaml"].decode()
    assert old in text
    files = {**bundle.files, "studies/small.yaml": text.replace(old, new).encode()}
    refused = api.ask("POST", "/studies", json=Bundle(bundle.study, files).content())
    assert refused.status_code == 422, refused.text
    assert said in refused.json()["error"]
    assert refused.json()["hint"]
    assert str(api.folder) not in refused.text
    assert api.book.submissions() == []
    assert not list(api.service.folder.glob(".new-*"))


CUSTOM = "format_version: 1\nname: s\nworkflows:\n  cot: {}\n"


@pytest.mark.parametrize(
    "space",
    [
        f"{CUSTOM}  'their_agent:answer': {{}}\n",
        f"{CUSTOM}  cascade: {{cheap: [direct], costly: ['their_agent:answer']}}\n",
        f"{CUSTOM}  cascade: {{cheap: direct, costly: {{choices: ['their_agent:answer', cot]}}}}\n",
    ],
)
def test_code_of_others_is_not_even_imported(api, monkeypatch, space):
    files = {**api.bundle().files, "spaces/space.yaml": space.encode()}
    refused = api.ask("POST", "/studies", json=Bundle("studies/small.yaml", files).content())
    assert refused.status_code == 422
    assert "'their_agent:answer' is code that is not the tuner's" in refused.json()["error"]


def test_a_model_may_be_called_as_the_study_likes_and_a_role_may_have_a_colon(api):
    bundle = api.bundle(replace=("models: {lb:", "models: {'llama:8b':"))
    made = api.ask("POST", "/studies", json=bundle.content())
    assert made.status_code == 202, made.text


def test_a_study_may_leave_the_address_to_the_service(api, api_base):
    made = api.submit("small", replace=(f'api_base: "{api_base}", ', ""))
    assert made.status_code == 202, made.text


def test_a_name_is_one_studys(api):
    api.submit("small")
    api.reach("small", "running")
    assert api.submit("small").status_code == 202  # the same again
    other = api.submit("small", trials=9)
    assert other.status_code == 409
    assert "is running" in other.json()["error"]
    assert api.ask("POST", "/studies/small/pause").json()["state"] == "paused"
    other = api.submit("small", replace=("examples: 8", "examples: 7"))
    assert other.status_code == 409
    assert "with another task" in other.json()["error"]
    grown = api.submit("small", trials=9)
    assert grown.status_code == 202
    assert grown.json()["state"] == "queued"


def test_a_study_rests_and_goes_on_and_ends(api):
    api.submit("small")
    api.reach("small", "running")
    assert api.ask("POST", "/studies/small/resume").status_code == 409
    assert api.ask("POST", "/studies/small/pause").json()["state"] == "paused"
    assert api.ask("POST", "/studies/small/pause").status_code == 200  # it is
    assert api.ask("POST", "/studies/small/resume").json()["state"] in ("queued", "running")
    api.reach("small", "running")
    ended = api.ask("POST", "/studies/small/cancel").json()
    assert (ended["state"], ended["reason"]) == ("cancelled", "by local")
    assert api.ask("POST", "/studies/small/pause").status_code == 409
    heard = api.ask("GET", "/studies/small/events").text  # to the end, as it has ended
    states = ["queued", "running", "paused", "queued", "running", "cancelled"]
    assert [line.partition('"state": "')[2].partition('"')[0] for line in heard.splitlines() if '"event": "state"' in line] == states  # fmt: skip


def test_nothing_is_found_of_what_has_not_begun(api):
    api.submit("small")
    for method, path, body in (
        ("GET", "front", None),
        ("POST", "export", {}),
        ("POST", "verifications", {}),
    ):
        asked = api.ask(method, f"/studies/small/{path}", json=body)
        assert asked.status_code == 409
        assert "has no trials yet" in asked.json()["error"]
        assert api.ask(method, f"/studies/other/{path}", json=body).status_code == 404


def test_only_who_has_a_token_may_ask_and_change_what_is_his(api):
    anna, bert = api.book.add_user("anna", 1.0), api.book.add_user("bert", 1.0)
    for token in (None, "wrong", anna + "x", ""):
        refused = api.ask("GET", "/studies", token=token)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json().keys() == {"error", "hint"}
    assert api.ask("GET", "/studies", headers={"Authorization": f"Basic {anna}"}).status_code == 401
    assert api.ask("GET", "/metrics").status_code == 401
    assert api.ask("GET", "/healthz").json()["status"] == "ok"
    assert api.ask("GET", "/docs").status_code == 200
    made = api.submit("small", token=anna)
    assert made.json()["user"] == "anna"
    assert api.ask("GET", "/studies", token=bert).json()[0]["name"] == "small"
    for verb in ("pause", "cancel", "resume"):
        refused = api.ask("POST", f"/studies/small/{verb}", token=bert)
        assert refused.status_code == 403
        assert refused.json()["error"] == "it belongs to anna"
    refused = api.submit("small", token=bert)
    assert refused.status_code == 409
    assert "of anna" in refused.json()["error"]
    assert api.ask("POST", "/studies/small/cancel", token=anna).json()["state"] == "cancelled"


def test_what_was_nobodys_is_everybodys_once_there_are_users(api):
    api.submit("small")
    anna = api.book.add_user("anna", 1.0)
    assert api.ask("POST", "/studies/small/cancel", token=anna).json()["state"] == "cancelled"
    assert api.submit("small", token=anna).json()["user"] == "anna"


def test_other_machines_are_asked_for_a_token_also_when_the_last_user_is_gone(open_service):
    async def nothing(*_, **__):
        pass

    with open_service(nothing, extra="host: 0.0.0.0") as api:
        token = api.book.add_user("anna", 1.0)
        assert api.ask("GET", "/studies", token=token).status_code == 200
        api.book.remove_user("anna")
        assert api.ask("GET", "/studies", token=token).status_code == 401
        assert api.ask("GET", "/studies").status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8090"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Host": "localhost:8090"}, 200),
        ({"Host": "[::1]:8090"}, 200),
    ],
)
def test_without_users_a_page_from_elsewhere_may_not_ask(api, headers, status):
    assert api.ask("GET", "/studies", headers=headers).status_code == status


def test_a_form_that_a_browser_may_send_is_no_request(api):
    sent = api.ask("POST", "/studies", content="{}", headers={"Content-Type": "text/plain"})
    assert sent.status_code == 422
    assert api.ask("OPTIONS", "/studies").headers.get("access-control-allow-origin") is None


def test_bodies_are_bounded(open_service):
    async def nothing(*_, **__):
        pass

    with open_service(nothing, extra="largest_upload_mb: 1") as api:
        files = {"a": base64.b64encode(bytes(1 << 20)).decode()}
        large = api.ask("POST", "/studies", json={"study": "a", "files": files})
        assert large.status_code == 413
        assert large.json()["hint"]

        def pieces():
            yield from [b" " * 1000] * 100

        streamed = api.ask(
            "POST", "/studies/x/export", content=pieces(), headers={"Content-Type": "application/json"}
        )  # fmt: skip
        assert streamed.status_code == 413
        assert api.ask("POST", "/studies/x/export", content=b"x" * 70_000).status_code == 413


def test_code_runs_where_it_is_allowed(open_service, tmp_path, monkeypatch):
    (tmp_path / "their_agent.py").write_text(
        "from workflows import Params\n\n\nclass Mine(Params):\n    loud: bool = False\n\n\n"
        "async def answer(question: str, session: object, params: Mine) -> str:\n    return 'forty-two'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    async def nothing(*_, **__):
        pass

    with open_service(nothing, allow_custom=True) as api:
        space = "format_version: 1\nname: s\nworkflows:\n  'their_agent:answer': {}\n"
        made = api.submit("small", space=space)
        assert made.status_code == 202, made.text


def test_errors_have_one_form(api):
    for method, path in (("GET", "/nothing"), ("PUT", "/studies"), ("GET", "/studies/a%20b")):
        refused = api.ask(method, path)
        assert refused.status_code in (404, 405, 422)
        assert refused.json().keys() == {"error", "hint"}


def test_the_page_of_operations_needs_no_network(api):
    page = api.ask("GET", "/", follow_redirects=True)
    assert page.headers["content-type"].startswith("text/html")
    document = api.ask("GET", "/openapi.json").json()
    for path in document["paths"]:
        assert path in page.text
    assert "src=" not in page.text
    assert "//" not in page.text.replace("https://", "//").replace("</", "").replace("//127", "") or "http" not in page.text  # fmt: skip


def test_the_catalogue_can_be_asked_for(api):
    models = api.ask("GET", "/models").json()
    assert models["lb"]["model"] == "openai/loopback"
    assert set(models) == {"lb", "second", "here"}


def test_health_says_when_the_engine_is_gone(api):
    assert api.ask("GET", "/healthz").status_code == 200
    api.engine.stop()
    gone = api.ask("GET", "/healthz")
    assert gone.status_code == 503
    assert "engine" in gone.json()["problem"]


def test_the_guide_has_every_route_and_series(api):
    guide = (Path(__file__).resolve().parents[3] / "docs" / "service.md").read_text()
    told = guide.replace("…", "/studies/NAME").replace("NAME", "{name}")
    for path in api.ask("GET", "/openapi.json").json()["paths"]:
        assert path.partition("/{number}")[0] in told
    for family in text_string_to_metric_families(api.ask("GET", "/metrics").text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in guide
