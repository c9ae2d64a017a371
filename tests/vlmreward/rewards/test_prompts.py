import pytest

from vlmreward import PromptTemplate
from vlmreward.rewards.prompts import NAMED_PROMPTS


def test_fields_are_filled_and_braces_kept():
    template = PromptTemplate("{{x}} Is {text} by {style}? {text}!")
    assert template.fields == ("text", "style")
    assert template.format(text="a {cat}", style="Y") == "{x} Is a {cat} by Y? a {cat}!"
    assert PromptTemplate("Is it good?").format() == "Is it good?"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"lacks a value for text; expected fields: text: pass text="),
        ({"text": "a", "stile": "b"}, r"no field stile; expected fields: text"),
        ({"txt": "a"}, r"lacks a value for text"),
    ],
)
def test_missing_and_unknown_fields(values, message):
    with pytest.raises(ValueError, match=message):
        PromptTemplate("Is there {text}?").format(**values)


def test_values_must_be_text():
    with pytest.raises(TypeError, match="text is a int; expected a str"):
        PromptTemplate("{text}").format(text=3)


@pytest.mark.parametrize("bad", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a:>5}", "{a!r}"])
def test_malformed_templates(bad):
    with pytest.raises(ValueError, match=r"malformed.*expected fields like"):
        PromptTemplate(bad)


def test_paper_prompts():
    for name in ("paper/A", "paper/B", "paper/selected"):
        template = PromptTemplate.named(name)
        assert template.fields == ("text",)
        assert template.format(text="a cat").count("a cat") == 1
        assert template == PromptTemplate(NAMED_PROMPTS[name])
    assert "2. Geometric Quality" in PromptTemplate.named("paper/selected").template
    assert PromptTemplate.named("paper/A") != PromptTemplate.named("paper/B")


def test_unknown_name():
    with pytest.raises(ValueError, match=r"paper/C.*paper/selected"):
        PromptTemplate.named("paper/C")
