"""A configured base model becomes one verified folder, or one clear error."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.core.errors import ConfigError, InputError, ModelNotFoundError
from tasks.core.storage import Store, open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import check_evaluated_rows, count_parameters, resolve
from tests.support.chat_templates import FAMILIES
from tests.support.tiny_model import desk_row


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_a_folder_is_copied_once_and_counted(store: Store, tiny_model_dir: Path) -> None:
    config = BaseModelConfig(source=str(tiny_model_dir), license="Apache-2.0")
    model = resolve(config, store)
    assert resolve(config, store) == model
    assert model.license == "apache-2.0"
    folder = store.fetch_folder(model.folder)
    assert model.num_parameters == count_parameters(folder)
    assert 100_000 < model.num_parameters < 160_000
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}


def test_a_configured_template_is_another_model(store: Store, tiny_model_dir: Path) -> None:
    from tasks.modeling.conversations import render_prompt
    from tasks.modeling.loading import load_tokenizer

    plain = resolve(BaseModelConfig(source=str(tiny_model_dir)), store)
    template = "{% for message in messages %}{{ message.content }} >{% endfor %}"
    other = resolve(BaseModelConfig(source=str(tiny_model_dir), chat_template=template), store)
    assert plain.folder.sha256 != other.folder.sha256
    tokenizer = load_tokenizer(store.fetch_folder(other.folder))
    assert render_prompt(tokenizer, [{"role": "user", "content": "Hi"}]) == "Hi >"


def test_every_fault_of_a_folder_is_named(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "evil.py"}}))
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(BaseModelConfig(source=str(folder)), store)
    assert all(fault in str(caught.value) for fault in ("auto_map", "pickled", "no tokenizer"))


@pytest.mark.parametrize(
    "source", ["package:no-such-package", "no/such/folder", "missing.gguf", "org/not-cached", "package:"]
)
def test_a_missing_model_is_one_clear_error(store: Store, source: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve(BaseModelConfig(source=source), store)


@pytest.fixture
def broken_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that promises more bytes than it sends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b'{"sha":')

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("broken_hub")
def test_a_hub_that_breaks_off_is_one_clear_error(store: Store) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        resolve(BaseModelConfig(source="org/model"), store)
    assert caught.value.where == "training.base_model.source"
    assert "ProtocolError" in caught.value.found, "the error of the client that the hub uses"


def test_a_damaged_weights_file_is_found(store: Store, tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dir, folder)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelNotFoundError, match="damaged"):
        resolve(BaseModelConfig(source=str(folder)), store)


def test_a_license_that_is_not_allowed_is_refused(store: Store, tiny_model_dir: Path) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        resolve(BaseModelConfig(source=str(tiny_model_dir), allowed_licenses=("apache-2.0",)), store)


@pytest.mark.slow
def test_the_packaged_model_is_converted_once(store: Store) -> None:
    model = resolve(BaseModelConfig(), store)
    assert model.license == "apache-2.0"
    assert model.num_parameters == 134_515_008
    assert "Q4_1" in model.note
    assert resolve(BaseModelConfig(), store) == model


@pytest.mark.parametrize("form", ["configured", "file", "settings"])
def test_a_test_set_that_the_template_refuses_is_named_before_training(
    store: Store, tiny_model_dir: Path, tmp_path: Path, form: str
) -> None:
    template, folder = FAMILIES["gemma-2"].template, tmp_path / "base"
    shutil.copytree(tiny_model_dir, folder)
    if form == "file":
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    if form == "settings":
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        settings["chat_template"] = [{"name": "default", "template": template}]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    source = BaseModelConfig(source=str(folder), chat_template=template if form == "configured" else None)
    model = resolve(source, store)
    user, reply = desk_row(1)["messages"]  # type: ignore[misc]
    system = {"role": "system", "content": "Be brief."}
    good = store.write_rows([desk_row(1), {"id": "system", "messages": [system, user, reply]}], kind="messages")
    odd = store.write_rows([desk_row(1), {"id": "odd", "messages": [user, user, reply]}], kind="messages")
    check_evaluated_rows(model, (good,), store)
    with pytest.raises(InputError, match=r"1 of 2 rows .* odd") as caught:
        check_evaluated_rows(model, (good, odd), store)
    assert user["content"] not in str(caught.value)


def test_rows_are_not_taken_unchecked_where_a_stored_base_has_no_template(
    store: Store, tiny_model_dir: Path, tmp_path: Path
) -> None:
    model = resolve(BaseModelConfig(source=str(tiny_model_dir), license="mit"), store)
    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    bare = model.model_copy(update={"folder": store.add_folder(folder)})
    rows = store.write_rows([desk_row(1)], kind="messages")
    check_evaluated_rows(model, (rows,), store)
    with pytest.raises(ModelNotFoundError, match="without a chat template"):
        check_evaluated_rows(bare, (rows,), store)
