"""config.yaml, the environment and the command line; the file that comes with the project."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from server import example
from server.config import Config, ConfigError, FoundConfig, ModelConfig, ServerConfig
from server.config_file import load
from server.engine_config import EngineConfig
from server.sampling import SamplingParams

ROOT = Path(__file__).resolve().parent.parent

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a config.yaml."""

    def to_file(text: str) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return to_file


def refusal(path: Path | None) -> str:
    """What `load` says of a configuration that it refuses."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value)


def test_an_empty_file_is_all_defaults(write: Write) -> None:
    assert load(write("")) == Config() == load(None)
    assert load(write("server:\nmodels:\n")) == Config()


def test_the_store_lies_beside_the_file_that_names_it(write: Write, tmp_path: Path) -> None:
    assert load(write("server: {store: answers.db}")).server.store == tmp_path / "answers.db"
    assert load(write("server: {store: /data/answers.db}")).server.store == Path("/data/answers.db")
    assert load(write("")).server.store is None


def test_a_file_sets_what_it_names(write: Write) -> None:
    text = """
        server: {port: 9000, max_body: 1MiB}
        models:
          org/Some-Model.Q4:
            path: /m.gguf
            engine: {n_ctx: 64, tensor_split: [1, 3], prefix_cache: 2GiB, n_gpu_layers: all}
            sampling: {top_k: 7, logit_bias: {5: false}}
    """
    read = load(write(text))
    model = read.models["org/Some-Model.Q4"]
    assert (read.server.port, read.server.max_body) == (9000, 2**20)
    assert (model.engine.n_ctx, model.engine.tensor_split) == (64, (1.0, 3.0))
    assert (model.engine.prefix_cache, model.engine.n_gpu_layers) == (2**31, "all")
    assert (model.sampling.top_k, model.sampling.logit_bias) == (7, ((5, float("-inf")),))


@pytest.mark.parametrize(
    ("written", "read"),
    [("on", "on"), ("off", "off"), ("true", "on"), ("auto", "auto"), ("'off'", "off")],
)
def test_yaml_takes_a_bare_on_for_a_boolean(write: Write, written: str, read: str) -> None:
    path = write(f"models: {{m: {{path: x, engine: {{flash_attn: {written}}}}}}}")
    assert load(path).models["m"].engine.flash_attn == read


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("server: {prot: 1}", ["unknown key server.prot"]),
        (
            "foo: 1\nmodels: {m: {path: x, engine: {n_ctxx: 2}, sampling: {heat: 3}}}",
            [
                "unknown key foo",
                "unknown key models.m.engine.n_ctxx",
                "unknown key models.m.sampling.heat",
            ],
        ),
        (
            "server: {port: 99999}",
            ["server.port: Input should be less than or equal to 65535, got 99999"],
        ),
        ("models: {m: {preload: true}}", ["models.m.path is missing"]),
        ("models: {m: null}", ["models.m: Input should be a valid dictionary"]),
        ("models: {1: {path: x}}", ["models.1.[key]: Input should be a valid string"]),
        ("models: [m]", ["models: Input should be a valid dictionary"]),
        ("models: {m: {path: x, engine: {kv_quant: q9}}}", ["models.m.engine.kv_quant"]),
        ("models: {m: {path: x, engine: {flash_attn: 1}}}", ["models.m.engine.flash_attn"]),
        (
            "models: {m: {path: x, engine: {tensor_split: [0, 0]}}}",
            ["models.m.engine.tensor_split: shares must not be negative, and not all 0"],
        ),
        (
            "models: {m: {path: x, engine: {tensor_split: [2, -1]}}}",
            ["models.m.engine.tensor_split: shares must not be negative, and not all 0"],
        ),
        ("models: {m: {path: x, engine: {n_gpu_layers: -1}}}", ["models.m.engine.n_gpu_layers"]),
        ("models: {m: {path: x, engine: {n_cpu_moe: some}}}", ["models.m.engine.n_cpu_moe"]),
        (
            "models: {m: {path: x, engine: {devices: [CUDA0, none]}}}",
            ["models.m.engine.devices: none stands alone"],
        ),
        (
            "models: {m: {path: x, engine: {devices: [CUDA0, CUDA0]}}}",
            ["models.m.engine.devices: 'CUDA0' is named twice"],
        ),
        (
            "models: {m: {path: x, engine: {override_tensors: [ffn_up]}}}",
            ["models.m.engine.override_tensors: 'ffn_up' is not regex=buffer type"],
        ),
        (
            "models: {m: {path: x, engine: {override_tensors: {'': CPU}}}}",
            ["models.m.engine.override_tensors: '=CPU' is not regex=buffer type"],
        ),
        *(
            (
                f"models: {{m: {{path: x, engine: {{rpc_servers: ['{server}']}}}}}}",
                [f"models.m.engine.rpc_servers.0: '{server}' is not host:port"],
            )
            for server in ("host", ":1", "host:", "host:x", "host:0", "host:65536", "::1:50052")
        ),
        ("models: {m: {path: x, engine: {prefix_cache: lots}}}", ["models.m.engine.prefix_cache"]),
        ("models_dir: {a: b}", ["models_dir: Input should be a valid tuple"]),
        ("hf_cache: maybe", ["hf_cache: Input should be 'on' or 'off'"]),
        ("found: {n_ctx: 8}", ["unknown key found.n_ctx"]),
        (
            "models: {a: {path: x, aliases: [n, b]}, b: {path: y, aliases: [n]}}",
            ["models.a.aliases: 'b' is models.b already"],
        ),
        (
            "models: {a: {path: x, aliases: [n, a]}, b: {path: y, aliases: [n]}}",
            ["models.b.aliases: 'n' is models.a already"],
        ),
        ("- server", ["expected keys and values, got ['server']"]),
        ("hello", ["expected keys and values, got 'hello'"]),
        ("server: [", ["not YAML", "line 1, column 10"]),
    ],
)
def test_a_fault_names_its_key(write: Write, text: str, messages: list[str]) -> None:
    path = write(text)
    told = refusal(path)
    assert told.startswith(f"{path}: ")
    for message in messages:
        assert message in told


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == f"{tmp_path / 'none.yaml'}: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path}: Is a directory"
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"server: {host: \xe9}")
    assert refusal(latin).startswith(f"{latin}: not YAML: ")


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("server: {port: 1, host: a, log_level: error}")
    monkeypatch.setenv("CORRAL_SERVER__PORT", "2")
    monkeypatch.setenv("CORRAL_SERVER__HOST", "b")
    read = load(path, {"port": 3}).server
    assert (read.port, read.host, read.log_level) == (3, "b", "error")


def test_the_environment_reaches_every_model(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("models: {Org/A-1.5: {path: x, engine: {n_ctx: 8, n_slots: 2}}}")
    monkeypatch.setenv("CORRAL_MODELS__Org/A-1.5__ENGINE__N_CTX", "64")
    monkeypatch.setenv("CORRAL_MODELS__Org/A-1.5__SAMPLING__DRY_SEQUENCE_BREAKERS", '["a"]')
    monkeypatch.setenv("CORRAL_MODELS__new__PATH", "/new.gguf")
    models = load(path).models
    assert models.keys() == {"Org/A-1.5", "new"}
    assert (models["Org/A-1.5"].engine.n_ctx, models["Org/A-1.5"].engine.n_slots) == (64, 2)
    assert models["Org/A-1.5"].sampling.dry_sequence_breakers == ("a",)
    assert models["new"].path == Path("/new.gguf")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CORRAL_SERVER__PROT", "1", "environment: unknown key server.prot"),
        ("CORRAL_SERVR__PORT", "1", "environment: unknown key servr (CORRAL_SERVR__PORT)"),
        ("corral_servr__port", "1", "environment: unknown key servr (corral_servr__port)"),
        ("CORRAL_SERVER__PORT", "x", "environment: server.port: "),
        ("CORRAL_MODELS", "{", "environment: error parsing value for field"),
    ],
)
def test_a_fault_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal(None).startswith(message)


def test_variables_that_are_no_keys_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_HOME", "/x")
    monkeypatch.setenv("CORRALS__PORT", "1")
    assert load(None) == Config()


def test_a_relative_path_is_relative_to_the_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    path = write("models: {a: {path: m/a.gguf}, b: {path: /b.gguf}, c: {path: ~/c.gguf}}")
    placed = {id: model.path for id, model in load(path).models.items()}
    assert placed == {
        "a": tmp_path / "m" / "a.gguf",
        "b": Path("/b.gguf"),
        "c": Path("/home/ann/c.gguf"),
    }


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().server.port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_the_file_of_the_project_is_what_the_descriptions_say() -> None:
    text = (ROOT / "config.yaml").read_text()
    assert text == example.annotated(example.DEMO), "run `make config`"


def test_the_file_of_the_project_serves_the_demo_model(model_path: Path) -> None:
    read = load(ROOT / "config.yaml")
    model = read.models["smollm2-135m-instruct"]
    assert (model.path, model.preload) == (model_path, True)
    assert (model.engine.n_ctx, model.engine.n_slots) == (4096, 16)
    assert model.sampling.temperature == 0.7
    assert (read.server.host, read.server.port) == ("127.0.0.1", 8000)


def test_folders_of_models(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(write("models_dir: m")).models_dir == (tmp_path / "m",)
    assert load(write("models_dir: [m, /n]")).models_dir == (tmp_path / "m", Path("/n"))
    assert load(write("models_dir:")).models_dir == ()
    monkeypatch.setenv("CORRAL_MODELS_DIR", "/a:/b")
    assert load(write("models_dir: m")).models_dir == (Path("/a"), Path("/b"))


def test_offload_settings_are_written_as_is_handy(write: Write) -> None:
    def engine(text: str) -> EngineConfig:
        return load(write(f"models: {{m: {{path: x, engine: {{{text}}}}}}}")).models["m"].engine

    assert engine("devices: none").devices == ("none",)
    assert engine("devices: [CUDA1, CUDA0]").devices == ("CUDA1", "CUDA0")
    assert engine("rpc_servers: 'h:1'").rpc_servers == ("h:1",)
    pairs = ("a=b=CPU", "c=CUDA0")
    assert engine("override_tensors: {a=b: CPU, c: CUDA0}").override_tensors == pairs
    assert engine("override_tensors: ['a=b=CPU', c=CUDA0]").override_tensors == pairs
    assert engine("override_tensors: c=CUDA0").override_tensors == pairs[1:]
    assert engine("n_cpu_moe: all, n_gpu_layers: 3").n_cpu_moe == "all"


def test_what_is_found(write: Write) -> None:
    read = load(write("{hf_cache: off, default_model: m, found: {engine: {n_ctx: 64}}}"))
    assert (read.hf_cache, read.default_model, read.found.engine.n_ctx) == ("off", "m", 64)
    assert load(write("found:")).found == FoundConfig()


MODELS: tuple[type[BaseModel], ...] = (
    Config,
    ServerConfig,
    ModelConfig,
    FoundConfig,
    EngineConfig,
    SamplingParams,
)


@pytest.mark.parametrize("model", MODELS)
def test_every_key_has_a_description_that_names_its_choices(model: type[BaseModel]) -> None:
    for name, field in model.model_fields.items():
        assert field.description, name
        for choice in choices(field.annotation):
            assert choice in field.description or name == "kv_quant_v", f"{name}: {choice}"


def choices(annotation: Any) -> Iterator[str]:
    """The strings that a key may be, where these are counted."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from choices(part)


def test_a_commented_default_is_the_default() -> None:
    lines = example.annotated(example.DEMO).splitlines()
    active = (line for line in lines if not line.lstrip().startswith("# "))
    tree: dict[str, Any] = yaml.safe_load("\n".join(line.replace("#", "", 1) for line in active))
    assert Config.model_validate(tree) == Config.model_validate(example.DEMO)
    assert tree["server"].keys() == ServerConfig.model_fields.keys()
    model = tree["models"]["smollm2-135m-instruct"]
    assert model.keys() == ModelConfig.model_fields.keys()
    assert model["engine"].keys() == EngineConfig.model_fields.keys()
    assert model["sampling"].keys() == SamplingParams.model_fields.keys()


def test_comments_wrap_and_bytes_have_units() -> None:
    text = example.annotated(example.DEMO)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "#prefix_cache: 512MiB" in text
    assert "\n\nmodels:" not in text
    assert "\n\n# the pool" in text


def test_ids_that_yaml_would_misread_are_quoted() -> None:
    values = {"models": {"on": {"path": "x"}, "a: b": {"path": "y"}}}
    tree = yaml.safe_load(example.annotated(values))
    assert tree["models"].keys() == {"on", "a: b"}


def test_a_template_file_is_relative_to_the_configuration(write: Write) -> None:
    models = "models: {a: {path: x, template: mine.jinja}, b: {path: x, template: chatml}}"
    path = write(models)
    loaded = load(path).models
    assert loaded["a"].template == str(path.parent / "mine.jinja")
    assert loaded["b"].template == "chatml"
