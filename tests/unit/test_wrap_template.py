"""Templates of `penstock wrap`: what is a placeholder, how numbers are written, what is refused."""

from __future__ import annotations

import pytest

from penstock.wrapping.template import Template, TemplateError, Value

VALUES: dict[str, Value] = {"alpha": 0.1, "n": 3.0, "seed": 7, "role": "train"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("nothing", "nothing"),
        ("${alpha}", "0.1"),
        ("a=${alpha:.6e};", "a=1.000000e-01;"),
        ("${n} ${n:d} ${n:03d}", "3.0 3 003"),
        ("${seed}${role}", "7train"),
        ('{"alpha": ${alpha}, "more": {}}', '{"alpha": 0.1, "more": {}}'),
        ("$HOME $$ ${alpha}$", "$HOME $$ 0.1$"),
        ("$${alpha} is ${alpha}", "${alpha} is 0.1"),
        ("&heat\r\n  a = ${alpha}\r\n/\n", "&heat\r\n  a = 0.1\r\n/\n"),
    ],
)
def test_placeholders_are_filled_and_all_else_stays(text: str, filled: str) -> None:
    assert Template(text, "input").fill(VALUES) == filled


def test_a_number_without_a_format_keeps_all_its_digits() -> None:
    third = 1.0 / 3.0
    assert float(Template("${x}", "input").fill({"x": third})) == third


@pytest.mark.parametrize(
    "text",
    [
        "${}", "${alpha.real}", "${alpha[0]}", "${alpha!r}", "${0}", "${alpha:}", "${ alpha}",
        "${alpha", "${alpha\n}", "${alpha:{n}}", "${__import__('os')}",
    ],
)  # fmt: skip
def test_what_is_no_name_and_format_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(TemplateError, match=r"^in\.nml, line 2, has"):
        Template(f"first\n{text}", "in.nml")


def test_an_unknown_name_is_answered_with_the_valid_ones() -> None:
    template = Template("a\n${alhpa} ${n}", "in.nml")
    assert template.names == {"alhpa", "n"}
    with pytest.raises(TemplateError) as told:
        template.check(VALUES)
    assert str(told.value) == (
        "in.nml, line 2, has the placeholder ${alhpa}. Valid are alpha, n, role, seed; "
        "a literal ${ is written $${."
    )
    with pytest.raises(TemplateError, match="alhpa"):
        template.fill(VALUES)


@pytest.mark.parametrize("text", ["${alpha:d}", "${alpha:.6q}", "${role:.3f}"])
def test_a_format_that_does_not_fit_the_value_is_refused(text: str) -> None:
    with pytest.raises(TemplateError, match=r"line 1, has .* cannot be written like that"):
        Template(text, "in.nml").fill(VALUES)
