"""The list of families: what each declares, and the tables that are made of it."""

import family_tables
import pytest
import tiny_models

from vlmreward import processors
from vlmreward.models.families import FAMILIES, VLMFamily, family_of, members


def test_the_tables_are_those_of_the_families():
    assert family_tables.main(["--check"]) == 0


def test_a_table_that_is_out_of_date_is_noticed(monkeypatch):
    monkeypatch.setattr(family_tables, "FAMILIES", FAMILIES[1:])
    assert family_tables.main(["--check"]) == 1


def test_names_are_given_once():
    every = [member for family in FAMILIES for member in family.members]
    assert len({m.key for m in every}) == len({m.name for m in every}) == len(every)
    types = [{member.model_type for member in family.members} for family in FAMILIES]
    assert len(set().union(*types)) == sum(map(len, types))


@pytest.mark.parametrize("key", tiny_models.FAMILIES)
def test_a_tiny_model_is_what_its_family_says(key, family_pair):
    member = members()[key]
    model, processor = family_pair(key)
    assert model.config.model_type == member.model_type
    assert type(processor.image_processor).__name__ == member.image_processor
    assert member in type(family_of(model, processor)).members
    assert sum(p.numel() for p in model.parameters()) < 2**20
    ours = processors.from_hf(processor)
    assert not isinstance(ours, processors.FallbackProcessor)


def test_others_are_asked_the_common_way():
    assert type(family_of(*tiny_models.build("llava_next"))) is VLMFamily
