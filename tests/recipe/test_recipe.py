"""Contract: a recipe means what it says, and every mistake is named with its file, line and fix.

The digest depends on what the recipe says and on nothing else.
"""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from rammerge.errors import InputError
from rammerge.recipe import Recipe, load, parse, quoted, schema

EXAMPLES = Path(__file__).parents[2] / "examples"
FULL = textwrap.dedent(
    """\
    name: zoo
    base: {source: ./base}
    agents:
      tool: agents/tool
      code: {source: org/code, revision: main}
    merges:
      - ram
      - {method: ram_plus, preset: paper, params: {r: 0.2}}
      - method: task_arithmetic
        sweep: {scale: [0.5, 1e-5]}
      - {method: ties, sweep: {density: [0.1, 0.2], scale: [1.0]}, name: mine}
    output: {dtype: bfloat16, rounding: stochastic, seed: 3, shard_size: 512MiB, tokenizer: tool}
    compute: {device: "cuda:1", memory: 1.5GiB}
    evaluation:
      suites: [zoo_tool]
      limit: 10
    gates:
      - {rule: not_worse_than_base, margin: 0.01}
      - beats_every_agent
    registry: {model: zoo-merged, promote: false}
    """
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Recipe]:
    def write_and_load(text: str) -> Recipe:
        (tmp_path / "recipe.yaml").write_text(text)
        return load(tmp_path / "recipe.yaml")

    return write_and_load


def test_a_full_recipe_is_read_as_written(read: Callable[[str], Recipe], tmp_path: Path) -> None:
    recipe = read(FULL)
    assert recipe.model_name == "zoo-merged"
    assert recipe.resolve(recipe.base) == str(tmp_path / "base")
    assert recipe.agents["code"].revision == "main"
    assert recipe.gates[0].model_dump() == {"rule": "not_worse_than_base", "margin": 0.01}
    assert [(v.name, v.params) for v in recipe.variants()] == [
        ("ram", {}),
        ("ram_plus-paper-r0.2", {"r": 0.2}),
        ("task_arithmetic-scale0.5", {"scale": 0.5}),
        ("task_arithmetic-scale1e-05", {"scale": 1e-5}),
        ("mine-density0.1-scale1.0", {"density": 0.1, "scale": 1.0}),
        ("mine-density0.2-scale1.0", {"density": 0.2, "scale": 1.0}),
    ]


def test_weights_rules_for_tensors_and_groups_are_read(read: Callable[[str], Recipe]) -> None:
    rules = '[{match: "*embed*", use: base}, {match: "*", params: {r: 0.0}}]'
    text = FULL.replace("preset: paper,", f"weights: {{tool: 0.5}}, tensors: {rules},")
    text = text.replace("agents/tool", "{group: [a, {source: org/b}]}").replace("tokenizer: tool", "tokenizer: tool.2")
    recipe = read(text)
    _, weighted, *_ = recipe.variants()
    assert (weighted.name, weighted.weights) == ("ram_plus-r0.2-tool0.5", {"tool": 0.5})
    assert weighted.tensors == [{"match": "*embed*", "use": "base"}, {"match": "*", "params": {"r": 0.0}}]
    assert recipe.groups == {"tool": ["tool.1", "tool.2"]}
    places = {name: (place, source.source) for name, (place, source) in recipe.members().items()}
    assert places == {
        "tool.1": (("agents", "tool", "group", 0), "a"),
        "tool.2": (("agents", "tool", "group", 1), "org/b"),
        "code": (("agents", "code"), "org/code"),
    }


def test_org_slash_name_is_a_directory_only_where_there_is_one(read: Callable[[str], Recipe], tmp_path: Path) -> None:
    recipe = read(FULL)
    assert recipe.resolve(*recipe.agents["code"].sources) == "org/code"
    (tmp_path / "org" / "code").mkdir(parents=True)
    assert recipe.resolve(*recipe.agents["code"].sources) == str(tmp_path / "org" / "code")


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("evaluation:", "evaluatoin:", 14, "evaluatoin: unknown key (did you mean 'evaluation'?)"),
        ("preset: paper", "presets: paper", 8, "merges[1].presets: unknown key (did you mean 'preset'?)"),
        ("{source: ./base}", "{sorce: ./base}", 2, "base.sorce: unknown key (did you mean 'source'?)"),
        ("name: zoo", "name: zoo\nname: twice", 2, "'name' occurs twice"),
        ("rounding: stochastic", "rounding: stochastik", 12, "(did you mean 'stochastic'?)"),
        ("name: zoo", "name: ../zoo", 1, "'../zoo' is not a name"),
        ("tool: agents/tool", "to/ol: agents/tool", 4, "'to/ol' is not a name"),
        ("tool: agents/tool", "base: agents/tool", 4, "agents.base: the name is reserved"),
        ("tool: agents/tool", "tool: {group: [a]}", 4, "agents.tool.group: needs 2 or more"),
        ("tool: agents/tool", "tool: {group: [a, b], source: c}", 4, "needs either `source` or `group`"),
        ("tool: agents/tool", "tool: {}", 4, "needs either `source` or `group`"),
        (
            "tool: agents/tool",
            "tool: {group: [a, b]}",
            12,
            "'tool' is neither base nor an agent",
        ),
        ("tool: agents/tool", "tool: {group: [a, b]}\n  tool.2: c", 4, "its name 'tool.2' is another agent's"),
        ("preset: paper", "tensors: [{match: x}]", 8, "merges[1].tensors[0]: needs either `use` or `params`"),
        ("preset: paper", "tensors: [{mach: x}]", 8, "merges[1].tensors[0].mach: unknown key (did you mean 'match'?)"),
        ("preset: paper", "weights: {tool: much}", 8, "merges[1].weights.tool: "),
        ("tokenizer: tool", "tokenizer: tol", 12, "neither base nor an agent (did you mean 'tool'?)"),
        ("- ram\n", "- ram\n  - ram\n", 8, "the variant name 'ram' is taken"),
        ("name: mine", "name: tool-density0.1-scale1.0", 0, ""),
        ("params: {r: 0.2}", "params: {r: 0.2}, sweep: {r: [0.1]}", 8, "'r' is both in params and in sweep"),
        ("{scale: [0.5, 1e-5]}", "{svc.alpha: [0.1]}", 9, "sweep.svc.alpha is of a step that `then` does not have"),
        ("[0.5, 1e-5]", "[]", 9, "sweep.scale needs one or more different values"),
        ("[0.5, 1e-5]", "[0.5, 0.5]", 9, "sweep.scale needs one or more different values"),
        ("[0.5, 1e-5]", "[0.5, .nan]", 10, "not a finite number"),
        ("limit: 10", "limit: 0", 16, "should be at least 1, not 0"),
        ("512MiB", "512MeB", 12, "a size is a number with a unit"),
        ("suites: [zoo_tool]", "suites: [zoo_tool, zoo_tool]", 15, "a suite is listed twice"),
        ('"cuda:1"', "gpu", 13, "compute.device: 'gpu' is not a device: use cpu, cuda or cuda:N"),
        ('device: "cuda:1"', "evaluate: gpu", 13, "compute.evaluate[0]: 'gpu' is not a device"),
        ('device: "cuda:1"', 'evaluate: [cuda, "cuda:0"]', 13, "compute.evaluate: a device is listed twice"),
        ('device: "cuda:1"', "evaluate: [cpu, cuda]", 13, "compute.evaluate: scores of processors and GPUs cannot be"),
        ("registry: {", "registry: [", 20, "not valid YAML"),
        ("promote: false", "promote: false, approval: required", 20, "`approval: required` asks about a promotion"),
        ("promote: false", "approval_timeout: soon", 20, "a time is a number with a unit"),
        ("promote: false", "push: nowhere", 20, "'nowhere' is not a repository on the hub: write ORG/NAME"),
        ("limit: 10", "limit: 10\nnotify: [{url: 'ftp://host'}]", 17, "a webhook is an http:// or https:// address"),
        ("limit: 10", "limit: 10\nnotify: [{url: 'http://me:pw@host'}]", 17, "holds an address with a password"),
        ("limit: 10", "limit: 10\nnotify: [{url: $HOOK}]", 17, "name must have SECRET, TOKEN or KEY in it"),
        ("limit: 10", "limit: 10\nnotify: [{url: 'http://a', block: a/b}]", 17, "needs either `url` or `block`"),
        ("limit: 10", "limit: 10\nnotify: [{url: 'http://a', secret: hunter2}]", 17, "is the name of an environment"),
        ("base: {source: ./base}", "base: &b {source: ./base}\nother: *b", 3, "aliases are not allowed"),
        ("evaluation:\n  suites: [zoo_tool]\n  limit: 10\n", "", 1, "the key 'evaluation' is missing"),
    ],
)
def test_each_mistake_is_named_with_its_line(
    read: Callable[[str], Recipe], tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    assert FULL.count(old) >= 1
    text = FULL.replace(old, new, 1)
    if not words:  # a legal change, to show that the mistakes above are the reason of the refusals
        assert read(text).variants()
        return
    with pytest.raises(InputError) as error:
        read(text)
    assert str(error.value).startswith(f"{tmp_path / 'recipe.yaml'}:{line}: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# Unquoted text that YAML 1.1 does not read as text, and how it reads it.
MISREAD = {
    "on": "true or false",
    "No": "true or false",
    "12345e6": "a number",
    "0123": "a number",
    "1_000": "a number",
    "12:30": "a number",
    "2026-11-26": "a date",
    "2026-11-26T10:00:00Z": "a date",
    "~": "nothing",
}


@pytest.mark.parametrize("text", MISREAD)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: zoo", "name: {}"),
        ("tool: agents/tool", "{}: agents/tool"),
        ("tool: agents/tool", "tool: {}"),
        ("{source: ./base}", "{{source: {}}}"),
        ("- ram\n", "- {}\n"),
        ("tokenizer: tool", "tokenizer: {}"),
        ("suites: [zoo_tool]", "suites: [{}]"),
    ],
    ids=["name", "agent", "short source", "source", "method", "tokenizer", "suite"],
)
def test_text_that_yaml_misreads_is_shown_as_written(
    read: Callable[[str], Recipe], text: str, old: str, new: str
) -> None:
    assert FULL.count(old) >= 1
    with pytest.raises(InputError) as error:
        read(FULL.replace(old, new.format(text), 1))
    assert f'YAML reads {text} as {MISREAD[text]}; put it in quotes: "{text}"' in str(error.value)


def test_text_in_quotes_is_text(read: Callable[[str], Recipe]) -> None:
    recipe = read(FULL.replace("tool: agents/tool", '"on": "0123"').replace("tokenizer: tool", 'tokenizer: "on"'))
    assert recipe.agents["on"].source == "0123"


def test_a_key_without_a_value_is_said_to_have_none(read: Callable[[str], Recipe]) -> None:
    with pytest.raises(InputError, match=r"agents\.tool: has no value; give one or remove the key"):
        read(FULL.replace("tool: agents/tool", "tool:", 1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"- a\n- b\n",
        b"just words",
        b"\xff\xfe\x00",
        b"a: \x00",
        b"a: !!python/object:os.system x",
        b"a: 2020-13-99",
        b"x: " + b"[" * 3000,
        b"a" * (1 << 21),
    ],
    ids=["empty", "list", "words", "binary", "nul", "python tag", "no such date", "deep", "huge"],
)
def test_what_is_no_recipe_is_refused_in_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="no such recipe file"):
            load(path)


def test_a_sweep_varies_a_step_after_the_method(read: Callable[[str], Recipe]) -> None:
    varied = "{scale: [0.5, 1e-5]}", "{scale: [0.5], svc.alpha: [0.1, 1.0]}\n    then: [{svc: {alpha: 0.3}}]"
    found = [variant for variant in read(FULL.replace(*varied)).variants() if variant.then]
    assert [variant.then for variant in found] == [[{"svc": {"alpha": 0.1}}], [{"svc": {"alpha": 1.0}}]]
    assert all(variant.params == {"scale": 0.5} for variant in found)
    assert len({variant.name for variant in found}) == 2


SERVED = "url: 'http://127.0.0.1:1/v1', model: m"


@pytest.mark.parametrize(
    ("evaluation", "yardsticks", "words"),
    [
        ("batch_size: 0", "", "evaluation.batch_size: must be a whole number from 1 to 65536, or auto"),
        ("batch_size: atuo", "", "must be a whole number from 1 to 65536, or auto"),
        ("router: true", "router: x", "yardsticks.router: the name is reserved"),
        ("router: true", "oracle: x", "yardsticks.oracle: the name is reserved"),
        ("limit: 2", "base: x", "yardsticks.base: the name is reserved"),
        ("limit: 2", "tool: x", "yardsticks.tool: the name is an agent's"),
        ("limit: 2", "ram: x", "the variant name 'ram' is taken"),
        ("limit: 2", "api: {}", "yardsticks.api: needs either `source` or `url`"),
        ("limit: 2", f"api: {{{SERVED}, source: x}}", "needs either `source` or `url`"),
        ("limit: 2", "api: {url: 'http://127.0.0.1:1/v1'}", "a server needs `model`"),
        ("limit: 2", "api: {source: x, key: A_KEY}", "`key` does not go with `source`"),
        ("limit: 2", "api: {url: 127.0.0.1, model: m}", "must begin with http:// or https://"),
        ("limit: 2", "api: {url: 'http://u:secret1@h/v1', model: m}", "holds an address with a password"),
        ("limit: 2", "api: {url: 'http://secret1@h/v1', model: m}", "holds more than the server and a path"),
        ("limit: 2", f"api: {{{SERVED}, key: sk-secret1}}", "never the key itself"),
        ("limit: 2", f"api: {{{SERVED}, key: HOME}}", "never the key itself"),
        ("limit: 2", f"api: {{{SERVED}, as_of: 2026-11-26}}", "put it in quotes"),
        ("limit: 2", f"api: {{{SERVED}, kye: A_KEY}}", "unknown key (did you mean 'key'?)"),
    ],
)
def test_each_mistake_about_yardsticks_is_named_and_no_secret_is_shown(
    read: Callable[[str], Recipe], evaluation: str, yardsticks: str, words: str
) -> None:
    text = FULL.replace("  limit: 10\n", f"  {evaluation}\n")
    with pytest.raises(InputError) as refused:
        read(f"{text}yardsticks: {{{yardsticks}}}\n").variants()
    assert words in str(refused.value) and "secret1" not in str(refused.value)


def test_yardsticks_are_checkpoints_or_models_on_servers(read: Callable[[str], Recipe]) -> None:
    recipe = read(f"{FULL}yardsticks: {{today: ./x, hub: {{source: o/x, revision: main}}, api: {{{SERVED}}}}}\n")
    sources = {name: each.checkpoint and each.checkpoint.source for name, each in recipe.yardsticks.items()}
    assert sources == {"today": "./x", "hub": "o/x", "api": None}
    assert recipe.beside == ["today", "hub", "api"]
    assert recipe.digest != read(FULL).digest


def test_too_wide_a_sweep_is_refused(read: Callable[[str], Recipe]) -> None:
    values = list(range(300))
    with pytest.raises(InputError, match="more than 256 variants"):
        read(FULL.replace("[0.5, 1e-5]", str(values)))


def test_digest_follows_meaning_not_layout(read: Callable[[str], Recipe]) -> None:
    recipe = read(FULL)
    shuffled = dict(reversed(list(yaml.safe_load(FULL).items())))
    shuffled["base"] = "./base"  # the short form says the same
    assert read("# a comment\n" + yaml.safe_dump(shuffled).replace("1e-05", "0.00001")).digest == recipe.digest
    assert read(FULL.replace("margin: 0.01", "margin: 0.02")).digest != recipe.digest
    assert read(FULL.replace("seed: 3", "seed: 4")).digest != recipe.digest


def test_a_run_of_a_release_whose_digests_cover_defaults_is_of_the_recipe(read: Callable[[str], Recipe]) -> None:
    of_then = "2cf2a796f3cbb6dc62ed2e7d8e1372aeedc86ca4cb8761bd3e2db99c54303127"
    recipe = read(FULL)
    assert recipe.is_of_digest(of_then) and recipe.is_of_digest(recipe.digest) and recipe.digest != of_then
    assert not read(FULL.replace("seed: 3", "seed: 4")).is_of_digest(of_then)


def test_a_key_of_a_later_release_changes_nothing_where_it_is_not_used(read: Callable[[str], Recipe]) -> None:
    class Later(Recipe):
        added: int = 5

    said = read(FULL)
    later = Later.model_validate(said.model_dump(exclude_unset=True))
    assert later.digest == said.digest and later.content == said.content
    used_now = later.model_copy(update={"added": 6})
    assert used_now.digest != said.digest and used_now.content != said.content
    for unused in ('device: "cuda:1", memory: 1.5GiB', "promote: false"):
        used = unused == "promote: false"
        assert (read(FULL.replace(unused, "")).content != said.content) is used
    assert read(f"{FULL}store: {{pack: true}}\n").content == said.content


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_valid_and_so_says_the_schema(path: Path) -> None:
    recipe = load(path)
    assert recipe.variants() or recipe.searches
    jsonschema.validate(yaml.safe_load(path.read_text()), schema())


def test_schema_refuses_what_the_parser_refuses() -> None:
    content = yaml.safe_load(FULL)
    jsonschema.validate(content, schema())
    for broken in ({**content, "extra": 1}, {k: v for k, v in content.items() if k != "evaluation"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema())
    json.dumps(schema())


def test_reference_names_every_key() -> None:
    """docs/recipe.md is the reference: every key of the schema has a row there, with its default."""
    reference = (Path(__file__).parents[2] / "docs" / "recipe.md").read_text()
    for section in [schema(), *schema()["$defs"].values()]:
        for key, about in section.get("properties", {}).items():
            assert f"`{key}`" in reference, key
            if "description" in about:
                assert about["description"] in reference, key


@pytest.mark.parametrize(
    ("written", "merge", "evaluate", "kind"),
    [
        ('device: "cuda:1"', "cuda:1", ("cuda:1",), "cuda"),
        ("merge: cuda, memory: 1GB", "cuda", ("cpu",), "cpu"),
        ('device: cuda, merge: cpu, evaluate: ["cuda:1", "cuda:2"]', "cpu", ("cuda:1", "cuda:2"), "cuda"),
        ("evaluate: cuda, device_memory: 8GiB", "cpu", ("cuda",), "cuda"),
    ],
)
def test_where_steps_run(
    read: Callable[[str], Recipe], written: str, merge: str, evaluate: tuple[str, ...], kind: str
) -> None:
    text = FULL.replace('device: "cuda:1", memory: 1.5GiB', written)
    compute = read(text).compute
    assert (compute.merge_on, compute.evaluate_on, compute.kind_of_evaluation) == (merge, evaluate, kind)
    assert set(compute.devices().values()) == {merge, *evaluate}
    jsonschema.validate(yaml.safe_load(text), schema())


@given(st.text(min_size=1))
@example("1e5")
@example("no")
@example("2024-13-99")
@example("a: b")
@example("x # y")
@example(" padded ")
@example("two\nlines")
def test_text_can_be_quoted_so_that_it_is_read_back(text: str) -> None:
    recipe = parse(Path("recipe.yaml"), FULL.replace("{source: ./base}", quoted(text)))
    assert recipe.base.source == text


NO_EVALUATION = "name: n\nbase: ./base\nagents: {a: ./a}\nmerges: [ram]\nevaluation: none\n"


def test_a_recipe_without_an_evaluation_promotes_nothing(read: Callable[[str], Recipe]) -> None:
    recipe = read(NO_EVALUATION)
    assert not recipe.evaluates
    assert recipe.registry.promote and not recipe.promotes
    assert recipe.digest != read(NO_EVALUATION.replace("none", "{suites: [zoo_tool]}")).digest
    jsonschema.validate(yaml.safe_load(NO_EVALUATION), schema())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NO_EVALUATION + "gates: [beats_every_agent]\n", ":6: gates: gates judge scores, and evaluation is none"),
        (NO_EVALUATION.replace("[ram]", "[ram, ties]"), ":4: merges: scores choose one of 2 variants"),
        (NO_EVALUATION + "registry: {promote: true}\n", ":6: registry.promote: scores decide about a promotion"),
        (NO_EVALUATION + "registry: {approval: required}\n", ":6: registry.approval: nothing is promoted"),
        (NO_EVALUATION.replace(" none", ""), ":5: evaluation: has no value; give the suites, or none"),
        (NO_EVALUATION.replace("none", "null"), ":5: evaluation: has no value"),
        (NO_EVALUATION.replace("none", "nothing"), ":5: evaluation: "),
        (NO_EVALUATION.replace("none", "{suites: []}"), ":5: evaluation.suites: "),
        (NO_EVALUATION.replace("none", "{suite: [a]}"), "evaluation.suite: unknown key (did you mean 'suites'?)"),
    ],
)
def test_what_scores_decide_is_refused_without_an_evaluation(
    text: str, message: str, read: Callable[[str], Recipe]
) -> None:
    with pytest.raises(InputError) as refused:
        read(text)
    assert message in str(refused.value)
