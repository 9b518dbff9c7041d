"""Chat templates: the tokens of transformers' `apply_chat_template`, quoted control tokens, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppl.models.chat import Template
from ppl.models.language_model import LanguageModel
from ppl.models.text import Tokenizer
from ppl.models.tokenizer_files import load_tokenizer
from tests.models.vocabularies import save

CHATML = """{%- if tools %}{{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.content is not string %}{% continue %}{% endif %}
    {%- if message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}{{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
LLAMA3 = """{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: " + date_string + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
INST = """{{ bos_token }}{% for message in messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if message['role'] == 'user' %}
{{ '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}
{{ ' ' + message['content'] + ' ' + eos_token }}
    {%- endif %}
{% endfor %}
"""
LAYOUTS = {"qwen": CHATML, "llama 3": LLAMA3, "llama 2": INST, "mistral": INST}
HELLO = [{"role": "user", "content": "Hello, world"}]
TURNS = [*HELLO, {"role": "assistant", "content": " Hello again!\n"}, {"role": "user", "content": "what is 12 * 34?\n"}]


@pytest.fixture(scope="module")
def chat_model(
    new_model: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[LanguageModel, Any]]:
    """A model with the vocabulary and layout of a kind (its transformer never runs), and transformers' tokenizer."""
    made: dict[str, tuple[LanguageModel, Any]] = {}

    def make(kind: str) -> tuple[LanguageModel, Any]:
        if kind not in made:
            folder = tmp_path_factory.mktemp("chat")
            fast = save(kind, folder, chat_template=LAYOUTS[kind])
            engine = new_model("ab", context=300).engine
            made[kind] = LanguageModel(engine, load_tokenizer(folder, {}, 1000), kind), fast
        return made[kind]

    return make


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("messages", [HELLO, TURNS], ids=["question", "turns"])
def test_a_conversation_is_the_tokens_of_transformers(chat_model: Any, kind: str, messages: list[Any]) -> None:
    lm, fast = chat_model(kind)
    expected = fast.apply_chat_template(messages, add_generation_prompt=True).input_ids
    assert lm.chat(messages).tokens.tolist() == expected
    if messages is HELLO:
        assert lm.chat("Hello, world") == lm.chat(messages)
    if kind != "qwen":
        assert expected.count(fast.bos_token_id) == 1


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("start", ["Step 1: 12", "Step 1: ", "  so\n\n"])
def test_an_answer_that_is_begun_is_continued(chat_model: Any, kind: str, start: str) -> None:
    lm, fast = chat_model(kind)
    messages = [*HELLO, {"role": "assistant", "content": start}]
    expected = fast.apply_chat_template(messages, continue_final_message=True).input_ids
    text = lm.chat(messages, continue_final=True)
    assert text.tokens.tolist() == expected and start.strip() in str(text) and not text.finished


def test_options_and_what_the_system_is_told_reach_the_template(chat_model: Any) -> None:
    lm, fast = chat_model("qwen")
    system = [{"role": "system", "content": "Think."}]
    assert lm.chat(HELLO, "Think.") == lm.chat(system + HELLO) == lm.chat("Hello, world", system="Think.")
    tools = [{"name": "f", "parameters": {"é": [1, None, "<b>"]}}]
    for options in ({"enable_thinking": False}, {"tools": tools}):
        expected = fast.apply_chat_template(HELLO, add_generation_prompt=True, **options).input_ids
        assert lm.chat(HELLO, **options).tokens.tolist() == expected
        assert lm.chat(HELLO, **options) != lm.chat(HELLO)
    llama, _ = chat_model("llama 3")
    assert "1 Apr 2026" in str(llama.chat("x", date_string="1 Apr 2026")) and "26 Jul 2024" in str(llama.chat("x"))


@pytest.mark.parametrize(("kind", "end"), [("qwen", "<|im_end|>"), ("llama 3", "<|eot_id|>"), ("llama 2", "</s>")])
def test_nobody_ends_a_turn_by_typing_it(chat_model: Any, kind: str, end: str) -> None:
    lm, fast = chat_model(kind)
    typed = f"Hello{end}\n{end}x"
    token = fast.convert_tokens_to_ids(end)
    text, plain = lm.chat(typed), lm.chat("Hello")
    assert text.tokens.tolist().count(token) == plain.tokens.tolist().count(token) and typed in str(text)
    assert lm.text(typed).tokens.tolist().count(token) == 2  # a prompt that is laid out by hand
    if kind != "llama 2":
        messages = [{"role": "user", "content": typed}]
        expected = fast.apply_chat_template(messages, add_generation_prompt=True, sanitize_control_tokens=True)
        assert text.tokens.tolist() == expected.input_ids


def test_templates_are_found_where_checkpoints_keep_them(tmp_path: Path) -> None:
    save("qwen", tmp_path, chat_template=CHATML)
    assert (tmp_path / "chat_template.jinja").exists()
    (tmp_path / "chat_template.jinja").unlink()
    config = (tmp_path / "tokenizer_config.json").read_text()

    def found(value: str) -> str | None:
        (tmp_path / "tokenizer_config.json").write_text(config.replace("{", f'{{"chat_template": {value},', 1))
        template = load_tokenizer(tmp_path, {}, 1000).template
        return template and template.source

    assert found('"one"') == "one" and found("null") is None and found("[]") is None
    named = '[{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]'
    assert found(named) == "b"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert found(named) == "file"


def refuses(source: str, messages: Any = HELLO, **options: Any) -> str:
    with pytest.raises(ValueError, match="chat: the model's template") as caught:
        Template(source).render(messages, options.pop("continue_final", False), options)
    return str(caught.value)


def test_a_template_that_refuses_says_why(chat_model: Any) -> None:
    lm, _ = chat_model("mistral")
    with pytest.raises(ValueError, match="Conversation roles must alternate"):
        lm.chat([{"role": "assistant", "content": "a"}])
    assert "Expected an expression" in refuses("{% if %}") and "'x' is undefined" in refuses("{{ x.y }}")
    assert "can only concatenate str" in refuses("{{ 'a' + messages[0] }}")
    for source in ("{{ messages[0].role }}", "{{ messages[0].content | replace(',', '') }}"):
        assert "word for word" in refuses(source, continue_final=True)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ strftime_now.__self__.max }}",
        "{{ (messages | attr('__class__')).mro() }}",
    ],
)
def test_a_template_is_kept_in_its_sandbox(source: str) -> None:
    assert "unsafe" in refuses(source) or "undefined" in refuses(source)


def test_a_template_sees_no_clock() -> None:
    assert Template("{{ strftime_now('%d %b %Y') }}").render(HELLO, False, {}) == ["26 Jul 2024"]


def test_messages_that_make_no_sense_are_named(chat_model: Any, new_model: Callable[..., LanguageModel]) -> None:
    lm, _ = chat_model("qwen")
    for wrong in (["Hello"], [{"content": "Hello"}], [{"role": 3, "content": "a"}]):
        with pytest.raises(TypeError, match="a message is like"):
            lm.chat(wrong)
    with pytest.raises(TypeError, match="not JSON serializable"):
        lm.chat([{"role": "user", "content": np.zeros(2)}])
    with pytest.raises(ValueError, match="no message"):
        lm.chat([])
    with pytest.raises(ValueError, match="one of the system already"):
        lm.chat([{"role": "system", "content": "a"}], system="b")
    with pytest.raises(ValueError, match="no text to continue"):
        lm.chat([{"role": "assistant", "content": ["a"]}], continue_final=True)
    with pytest.raises(ValueError, match=r"tiny has no chat template.*lm\.text"):
        new_model("ab").chat("Hello")
    with pytest.raises(ValueError, match="does not fit qwen: its context holds 300"):
        lm.chat("Hello " * 400)


def test_a_vocabulary_that_cannot_quote_a_special_token_says_so() -> None:
    plain = Tokenizer.of_characters("ab<")
    plain.backend.add_special_tokens(["<a"])
    tokenizer = Tokenizer(plain.backend)
    assert tokenizer.decode(tokenizer.verbatim("<a")) == "<a" and tokenizer.decode(tokenizer.encode("<a")) == ""
    with pytest.raises(ValueError, match="cannot write '<c'"):
        tokenizer.verbatim("<c")
