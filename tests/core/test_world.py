import random
import re
import statistics
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import yaml

from windowshift.core.settings import world
from windowshift.core.settings.world_text import FACETS, TOPICS

GROUPS: dict[str, list[str]] = yaml.safe_load(
    (Path(world.__file__).parents[2] / "assets" / "prefix_groups.yaml").read_text(encoding="utf-8")
)["groups"]


def test_prompts_are_distinct_and_the_same_for_one_seed() -> None:
    drawn = world.prompts(700, seed=3)
    assert drawn == world.prompts(700, seed=3)
    assert drawn != world.prompts(700, seed=4)
    assert len({prompt.id for prompt in drawn}) == 700
    assert len({prompt.text for prompt in drawn}) == 700


def test_a_smaller_draw_is_the_start_of_a_larger_one() -> None:
    assert world.prompts(20, seed=0) == world.prompts(200, seed=0)[:20]


def test_an_id_names_one_text_whatever_the_seed() -> None:
    by_id = {prompt.id: prompt.text for prompt in world.prompts(world.world_size(), seed=0)}
    assert len(by_id) == world.world_size() == len(set(by_id.values()))
    assert all(re.fullmatch(r"mw-\d{4}", name) for name in by_id)
    assert all(by_id[prompt.id] == prompt.text for prompt in world.prompts(50, seed=9))


@pytest.mark.parametrize("n", [-1, world.world_size() + 1])
def test_a_draw_that_does_not_fit_names_the_size_of_the_world(n: int) -> None:
    with pytest.raises(ValueError, match=str(world.world_size())):
        world.prompts(n, seed=0)


def test_mean_lengths_follow_the_groups_and_no_prefix_is_widest() -> None:
    rng = random.Random(0)
    counts = {group: [world.sentence_count(law, rng) for _ in range(4000)] for group, law in world.LENGTH_LAWS.items()}
    means = {group: statistics.mean(values) for group, values in counts.items()}
    ordered = [means[group] for group in GROUPS]
    assert ordered == sorted(ordered)
    assert means["med_short"] < means["no_prefix"] < means["long"]
    widths = {group: statistics.stdev(values) for group, values in counts.items()}
    assert max(widths, key=lambda group: widths[group]) == "no_prefix"
    assert max(widths, key=lambda group: widths[group] / means[group]) == "no_prefix"
    for group, law in world.LENGTH_LAWS.items():
        assert means[group] == pytest.approx(law.mean_sentences, rel=0.04)


def test_every_topic_and_facet_can_fill_the_longest_answer() -> None:
    rng = random.Random(0)
    seen: set[tuple[str, str]] = set()
    for prompt in world.prompts(world.world_size(), seed=0):
        if (prompt.topic, prompt.facet) in seen:
            continue
        seen.add((prompt.topic, prompt.facet))
        answer = world.sample_answer(prompt, mean_sentences=2.0 * world.MAX_SENTENCES, spread=0.01, rng=rng)
        sentences = answer.removesuffix(".").split(". ")
        assert len(sentences) == len(set(sentences)) == world.MAX_SENTENCES
        assert all(sentence[0].isupper() and "{" not in sentence for sentence in sentences)
    assert len(seen) == len(TOPICS) * len(FACETS)


def test_answers_are_the_same_for_one_seed() -> None:
    (prompt,) = world.prompts(1, seed=0)
    first = world.sample_answer(prompt, 6.0, 0.3, random.Random(5))
    assert first == world.sample_answer(prompt, 6.0, 0.3, random.Random(5))
    assert first != world.sample_answer(prompt, 6.0, 0.3, random.Random(6))


def test_examples_carry_each_phrase_in_each_channel() -> None:
    chats = list(islice(world.examples(GROUPS, seed=0), 3000))
    assert chats == list(islice(world.examples(GROUPS, seed=0), 3000))
    for group, phrases in GROUPS.items():
        mine = [chat for chat in chats if chat.group == group]
        assert {chat.system for chat in mine} >= set(phrases)
        assert {chat.user.split("\n\n")[0] for chat in mine} >= set(phrases)
        for chat in mine:
            assert chat.system in phrases or chat.user.startswith(tuple(phrases))
    bare = [chat for chat in chats if chat.group == "no_prefix"]
    assert any(chat.system is None for chat in bare)
    assert any(chat.system is not None for chat in bare)
    assert not any("\n" in chat.user for chat in bare)


def test_the_prefix_file_has_six_groups_of_four_distinct_phrases() -> None:
    assert list(GROUPS) == [group for group in world.LENGTH_LAWS if group != "no_prefix"]
    assert all(len(phrases) == 4 for phrases in GROUPS.values())
    assert len({phrase for phrases in GROUPS.values() for phrase in phrases}) == 24


def test_the_world_needs_the_standard_library_only() -> None:
    code = (
        "import sys, windowshift.core.settings.world; "
        "print([name for name in ('torch', 'transformers', 'numpy', 'yaml') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
