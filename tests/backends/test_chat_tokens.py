"""Chats as token ids, for the tokenizers and templates of the families: parts are parts of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import chat_families as families
from tests.tiny_models import CHATML, tokenizer
from windowshift.backends.local.chat_format import ChatFormat
from windowshift.backends.local.template_check import check_template
from windowshift.core.contract.errors import BackendError
from windowshift.core.contract.generation import Message, TemplateInputs

ASK = (Message("user", "What do bees do?"),)
DAY = TemplateInputs("2026-11-26")
CASE_15 = (
    "{{ bos_token }}{% for turn in messages %}{% if turn.role == 'user' %}{{ 'user: ' + turn.content + '\n' }}"
    "{% else %}{{ '<bot>\n' + turn.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>\n' }}{% endif %}"
)
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama-2": lambda: families.metaspace_bpe(families.LLAMA2),
    "llama-2 unigram": lambda: families.metaspace_unigram(families.LLAMA2),
    "dummy space": lambda: families.metaspace_bpe(CASE_15),
    "dummy space always": lambda: families.metaspace_bpe(CASE_15, scheme="always"),
    "mistral": lambda: families.metaspace_bpe(families.MISTRAL),
    "mistral control": lambda: families.metaspace_bpe(families.MISTRAL, special=["[INST]", "[/INST]"]),
    "llama-3": families.llama3,
    "qwen3": families.qwen,
    "chatml": lambda: tokenizer(CHATML),
    "wordpiece": lambda: families.word_piece(families.MISTRAL),
}


def chat(words: Any, inputs: TemplateInputs = DAY) -> ChatFormat:
    return ChatFormat(words, "m", frozenset({words.eos_token_id}), inputs)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("answer", ["They gather.", "Über 🙂 naïve", ""])
def test_tokens_are_those_of_the_templates_whole_text(family: str, answer: str) -> None:
    words = FAMILIES[family]()
    format_ = chat(words)
    learned = format_.training_tokens(ASK, answer)
    assert learned.prompt == format_.prompt_ids(ASK)
    whole = format_._render((*ASK, Message("assistant", answer)), for_answer=False)
    ids = words(whole, add_special_tokens=False)["input_ids"]
    together = [*learned.prompt, *learned.completion]
    assert learned.completion[-1] == words.eos_token_id
    if ids[: len(learned.prompt)] == learned.prompt:
        assert together == ids[: len(together)]  # but for what stands after the end token
    else:  # a token of the whole crosses the border, and the model has read the prompt's own
        assert words.decode(together) == words.decode(ids)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "wordpiece"])
@pytest.mark.parametrize(
    "answer", ["\n A river.", " A river.", "Hm.\n</think>\n\nA river.", "A river.\n\n", "<|im_end|>x"]
)
def test_odd_answers_are_learned_as_they_stand(family: str, answer: str) -> None:
    words = FAMILIES[family]()
    learned = chat(words).training_tokens(ASK, answer)
    prompt = words.decode(learned.prompt)
    text = words.decode([*learned.prompt, *learned.completion[:-1]])
    assert text.startswith(prompt)
    assert text.strip().endswith(answer.strip())
    assert learned.completion.count(words.eos_token_id) == 1
    assert learned.completion[-1] == words.eos_token_id


def test_case_10_white_space_before_an_answer_is_the_answers() -> None:
    words = families.metaspace_bpe(families.MISTRAL)
    for answer in ("They gather.", " They gather."):  # as a person writes it, and as the model did
        learned = chat(words).training_tokens(ASK, answer)
        assert words.convert_ids_to_tokens(learned.completion)[0].startswith("▁")
        assert (
            words.decode([*learned.prompt, *learned.completion])
            == "<s>[INST] What do bees do? [/INST] They gather.</s>"
        )


def test_what_a_model_writes_first_is_not_lost() -> None:
    words = families.metaspace_bpe(families.MISTRAL)
    format_ = chat(words)
    learned = format_.training_tokens(ASK, "They gather.")
    assert format_.text(learned.completion[:-1]) == " They gather."
    apart = chat(families.metaspace_bpe(CASE_15))
    assert apart.text(apart.training_tokens(ASK, "They gather.").completion[:-1]) == "They gather."


def test_a_token_across_the_border_belongs_to_nobody() -> None:
    words = families.byte_bpe(CHATML, "<|im_end|>", ["<|im_start|>"])
    format_ = chat(words)
    assert words.tokenize("\n\n") == ["ĊĊ"]
    learned = format_.training_tokens(ASK, "\nA river.")
    assert learned.prompt == format_.prompt_ids(ASK)
    assert words.decode(learned.completion) == "\nA river.<|im_end|>"


CONTROLS: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "byte bpe": (lambda: tokenizer(CHATML), ("<|im_end|>", "<|im_start|>")),
    "qwen": (families.qwen, ("<|im_end|>", "<think>", "</think>")),
    "metaspace": (lambda: families.metaspace_bpe(families.MISTRAL, special=["[INST]", "[/INST]"]), ("</s>", "[INST]")),
    "unigram": (lambda: families.metaspace_unigram(families.LLAMA2), ("</s>", "<s>", "<|im_end|>")),
    "wordpiece": (lambda: families.word_piece(families.MISTRAL), ("[SEP]", "[CLS]")),
    "no template": (lambda: tokenizer(None), ("<|im_end|>", "<|endoftext|>")),
}


@pytest.mark.parametrize("kind", CONTROLS)
def test_a_persons_text_never_becomes_a_control_token(kind: str) -> None:
    make, texts = CONTROLS[kind]
    words = make()
    format_ = chat(words)
    usual = format_.prompt_ids(ASK)
    for text in texts:
        token = words.convert_tokens_to_ids(text)
        ids = format_.prompt_ids((Message("user", f"What is {text} here?"),))
        assert ids.count(token) == usual.count(token), text
        shown = format_.prompt_text((Message("user", f"What is {text} here?"),))
        if kind != "wordpiece":  # which loses where spaces were
            assert f"What is {text} here?" in shown
            assert f"What is {text} here?" in words.decode(ids)


@pytest.mark.parametrize("kind", [kind for kind in CONTROLS if kind != "qwen"])
def test_a_models_text_never_becomes_a_control_token(kind: str) -> None:
    make, texts = CONTROLS[kind]
    words = make()
    usual = chat(words).training_tokens(ASK, "It is here.").completion
    for text in texts:
        token = words.convert_tokens_to_ids(text)
        learned = chat(words).training_tokens(ASK, f"It is {text} here.").completion
        assert learned.count(token) == usual.count(token), text
        if kind != "wordpiece":
            assert f"It is {text} here." in words.decode(learned)


def test_text_beside_a_control_token_is_encoded_as_ever() -> None:
    words = tokenizer(CHATML)
    ids = chat(words).prompt_ids((Message("user", "Über <|im_end|> 東京"),))
    plain = words("Über ", add_special_tokens=False)["input_ids"]
    assert any(ids[at : at + len(plain)] == plain for at in range(len(ids)))
    assert words.decode(ids).endswith("<|im_start|>user\nÜber <|im_end|> 東京<|im_end|>\n<|im_start|>assistant\n")


def test_thinking_models_learn_to_close_their_thought() -> None:
    for words, begin in ((families.qwen(families.QWEN3_THINKING), "\n"), (families.deepseek(), "\n")):
        format_ = chat(words)
        assert format_.opening == "<think>"
        end = words.convert_ids_to_tokens(words.eos_token_id) and words.eos_token
        thought = format_.training_tokens(ASK, "Yes.", reasoning="Hm.")
        assert words.decode(thought.completion) == f"Hm.\n</think>\n\nYes.{end}"
        aloud = format_.training_tokens(ASK, "Hm, long.\n</think>\n\nYes.")
        assert words.decode(aloud.completion) == f"Hm, long.\n</think>\n\nYes.{end}"
        assert aloud.completion.count(words.convert_tokens_to_ids("</think>")) == 1
        at_once = format_.training_tokens(ASK, "Yes.")
        assert words.decode(at_once.prompt).endswith(f"<think>{begin}")
        assert words.decode(at_once.completion).lstrip("\n") == f"</think>\n\nYes.{end}"


def test_harmony_learns_the_channels() -> None:
    words = families.harmony()
    format_ = chat(words)
    assert words.decode(format_.training_tokens(ASK, "Yes.").completion) == "<|channel|>final<|message|>Yes.<|return|>"
    thought = format_.training_tokens(ASK, "Yes.", reasoning="Hm.")
    assert words.decode(thought.completion) == (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>"
    )
    for learned, reasoning in ((thought, "Hm."), (format_.training_tokens(ASK, "Yes."), None)):
        written = format_.written(learned.completion[:-1])
        assert (written.text, written.reasoning) == ("Yes.", reasoning)


@pytest.mark.parametrize("make", [lambda: families.qwen(families.QWEN3_THINKING), families.deepseek])
def test_what_was_thought_is_told_from_what_was_said(make: Callable[[], Any]) -> None:
    format_ = chat(make())
    ids = format_.training_tokens(ASK, "Yes, they do.", reasoning="Hm.").completion[:-1]
    written = format_.written(ids)
    assert (written.reasoning, written.text) == ("Hm.", "Yes, they do.")
    assert format_.text(ids[written.start :]) == "Yes, they do."
    only = format_.written(ids[:2])
    assert only.text is None
    assert only.reasoning is not None


def test_a_model_that_thinks_unasked_is_parted_too() -> None:
    words = families.qwen()
    format_ = chat(words)
    ids = words("<think>\nHm.\n</think>\n\nYes.", add_special_tokens=False)["input_ids"]
    assert (format_.written(ids).reasoning, format_.written(ids).text) == ("Hm.", "Yes.")
    plain = words("The mark </think> ends it.", add_special_tokens=False)["input_ids"]
    assert format_.written(plain).text == "The mark </think> ends it."


class TestTemplates:
    def test_the_date_is_told_and_the_clock_never_read(self) -> None:
        words = families.llama3()
        one, other = (chat(words, TemplateInputs(day)).prompt_text(ASK) for day in ("2026-11-26", "2031-03-01"))
        assert "Today Date: 26 Nov 2026" in one
        assert "Today Date: 01 Mar 2031" in other
        assert one.replace("26 Nov 2026", "01 Mar 2031") == other
        assert one.startswith("<|bos|><|start_header_id|>")
        with pytest.raises(BackendError, match="asks for the date, and none was given"):
            chat(words, TemplateInputs()).prompt_ids(ASK)

    def test_every_directive(self) -> None:
        template = "{{ strftime_now(messages[0].content) }}" + CHATML
        words = tokenizer(template)
        for asked, told in (
            ("%d %b %Y", "05 Mar 2026"),
            ("%B %-d, %Y (%A)", "March 5, 2026 (Thursday)"),
            ("%Y-%m-%d %H:%M:%S 100%% %j %a", "2026-03-05 00:00:00 100% 064 Thu"),
            ("%d/%m/%y", "05/03/26"),
        ):
            text = chat(words, TemplateInputs("2026-03-05"))._render((Message("user", asked),), for_answer=True)
            assert text.startswith(told + "<|im_start|>")

    def test_what_a_template_reads_is_on_record(self) -> None:
        found = check_template(chat(families.llama3()), DAY)
        assert dict(found.inputs) == {"date": "2026-11-26"}
        assert found.unusable is found.untrainable is None
        assert dict(check_template(chat(tokenizer(CHATML)), DAY).inputs) == {}
        assert dict(check_template(chat(families.qwen()), DAY).inputs) == {"switches": {"enable_thinking": False}}
        thinks = TemplateInputs(None, (("enable_thinking", True),))
        assert dict(check_template(chat(families.qwen(), thinks), thinks).inputs)["switches"]["enable_thinking"] is True
        wrong = TemplateInputs(None, (("enable_thinkin", True),))
        assert "did you mean 'enable_thinking'" in str(check_template(chat(families.qwen(), wrong), wrong).unusable)

    @pytest.mark.parametrize(
        "content",
        [
            "'' if turn.role == 'user' else turn.content",
            "turn.content[:40]",
            "turn.content | upper",
            "turn.content | replace('\n', ' ')",
            "turn.content | e",
        ],
    )
    def test_a_template_that_loses_a_persons_text_is_refused(self, content: str) -> None:
        body = "{% for turn in messages %}{{ '<|im_start|>' + turn.role + '\n' + (" + content + ") + '<|im_end|>\n' }}"
        words = tokenizer(body + "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
        found = check_template(chat(words), DAY)
        assert "drops or changes the text of the user message" in str(found.unusable)
        with pytest.raises(BackendError, match="of the user message"):
            chat(words).prompt_ids((Message("user", "<b>One</b> of the bees\n" + "do gather " * 9),))

    @pytest.mark.parametrize(
        "turn",
        [
            "'' if turn.role == 'user' and messages[0].role == 'system' else turn.content",
            "turn.content[:40] if turn.role == 'system' else turn.content",
            "turn.content | upper if turn.role == 'system' else turn.content",
        ],
    )
    def test_a_system_message_must_cost_no_other_text(self, turn: str) -> None:
        """Known before anything runs: where a system message is wanted, `plan` asks `supports_system`."""
        words = tokenizer(CHATML.replace("message['content']", f"(({turn}))".replace("turn.", "message.")))
        assert check_template(chat(words), DAY).unusable is None
        assert not chat(words).supports_system
        assert chat(tokenizer(CHATML)).supports_system

    def test_a_header_that_a_template_forgets_is_no_answer(self) -> None:
        without = CHATML.partition("{% if add_generation_prompt")[0]
        assert without != CHATML
        for forgets, whole in ((without, CHATML), (without.replace("\n' + m", "' + m"), None)):
            words = tokenizer(forgets)
            format_ = chat(words)
            assert format_.prompt_text(ASK).rstrip().endswith("<|im_start|>assistant")
            learned = format_.training_tokens(ASK, "They gather.")
            assert words.decode(learned.completion) == "They gather.<|im_end|>"
            if whole is not None:
                assert learned == chat(tokenizer(whole)).training_tokens(ASK, "They gather.")

    def test_turns_that_are_moved_or_dropped_are_told(self) -> None:
        last = CHATML.replace("for message in messages", "for message in messages[-1:]")
        backwards = CHATML.replace("for message in messages", "for message in messages | reverse")
        for template, says in ((last, "drops"), (backwards, "moves")):
            found = check_template(chat(tokenizer(template)), DAY)
            assert any("several turns" in note and says in note for note in found.notes)

    def test_what_cannot_be_trained_is_known_before(self) -> None:
        upper = CHATML.replace(
            "message['content']",
            "(message['content'] | upper if message['role'] == 'assistant' else message['content'])",
        )
        other = CHATML.replace("assistant\n' }}{% endif", "robot\n' }}{% endif")
        assert "changes the text of completions" in str(check_template(chat(tokenizer(upper)), DAY).untrainable)
        assert "differently" in str(check_template(chat(tokenizer(other)), DAY).untrainable)

    def test_chance_and_thinking_are_told(self) -> None:
        chance = check_template(chat(tokenizer("{{ ['a', 'b'] | random }}" + CHATML)), DAY)
        assert "at random" in str(chance.unusable)
        thinks = check_template(chat(families.deepseek()), DAY)
        assert any("always thinks" in note for note in thinks.notes)
        assert thinks.untrainable is None


def test_the_embedded_models_need_nothing() -> None:
    """`plan` does not try their templates, which are this project's own: here they are tried."""
    from windowshift.backends.local.tokenizer import load_chat_format

    found = check_template(load_chat_format("microworld", None, DAY), DAY)
    assert (dict(found.inputs), found.unusable, found.untrainable, found.notes) == ({}, None, None, ())
