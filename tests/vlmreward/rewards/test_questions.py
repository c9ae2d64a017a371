import pytest

from vlmreward import QuestionTemplate
from vlmreward.rewards.questions import NAMED_QUESTIONS


def test_fields_are_filled_and_braces_kept():
    template = QuestionTemplate("{{x}} Is {prompt} by {style}? {prompt}!")
    assert template.placeholders == ("prompt", "style")
    assert template.format(prompt="a {cat}", style="Y") == "{x} Is a {cat} by Y? a {cat}!"
    assert QuestionTemplate("Is it good?").format() == "Is it good?"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"lacks a value for prompt; expected placeholders: prompt: pass prompt="),
        ({"prompt": "a", "stile": "b"}, r"no placeholder stile; expected placeholders: prompt"),
        ({"txt": "a"}, r"lacks a value for prompt"),
    ],
)
def test_missing_and_unknown_fields(values, message):
    with pytest.raises(ValueError, match=message):
        QuestionTemplate("Is there {prompt}?").format(**values)


def test_values_must_be_text():
    with pytest.raises(TypeError, match="prompt is a int; expected a str"):
        QuestionTemplate("{prompt}").format(prompt=3)


@pytest.mark.parametrize("bad", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a:>5}", "{a!r}"])
def test_malformed_templates(bad):
    with pytest.raises(ValueError, match=r"malformed.*expected placeholders like"):
        QuestionTemplate(bad)


def test_paper_prompts():
    for name in ("paper/A", "paper/B", "paper/selected"):
        template = QuestionTemplate.named(name)
        assert template.placeholders == ("prompt",)
        assert template.format(prompt="a cat").count("a cat") == 1
        assert template == QuestionTemplate(NAMED_QUESTIONS[name])
    assert "2. Geometric Quality" in QuestionTemplate.named("paper/selected").template
    assert QuestionTemplate.named("paper/A") != QuestionTemplate.named("paper/B")


def test_unknown_name():
    with pytest.raises(ValueError, match=r"paper/C.*paper/selected"):
        QuestionTemplate.named("paper/C")
