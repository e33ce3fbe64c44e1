"""Search attributes and memos: which may be set, which values their types take, and how upserts merge."""

from __future__ import annotations

import json

import pytest
from temporalio.api.command.v1 import (
    ModifyWorkflowPropertiesCommandAttributes,
    UpsertWorkflowSearchAttributesCommandAttributes,
)
from temporalio.api.common.v1 import Memo, Payload, SearchAttributes
from temporalio.api.enums.v1 import IndexedValueType

from perdure.server.core.checks import (
    PREDEFINED_TYPES,
    SYSTEM_TYPES,
    BadCommand,
    RunFacts,
    check_modify_properties,
    check_search_attributes,
    check_upsert_search_attributes,
    merged_fields,
    normalize_search_attributes,
    typed_search_attributes,
    without_removals,
)
from perdure.server.core.errors import InvalidArgument
from perdure.server.core.limits import Limits

LIMITS = Limits()
CUSTOM: dict[str, int] = {
    "Flag": IndexedValueType.INDEXED_VALUE_TYPE_BOOL,
    "When": IndexedValueType.INDEXED_VALUE_TYPE_DATETIME,
    "Ratio": IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE,
    "Count": IndexedValueType.INDEXED_VALUE_TYPE_INT,
    "Customer": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
    "Tags": IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Note": IndexedValueType.INDEXED_VALUE_TYPE_TEXT,
}


def raw(data: bytes, encoding: bytes = b"json/plain") -> Payload:
    return Payload(metadata={"encoding": encoding}, data=data)


def value(of: object) -> Payload:
    return raw(json.dumps(of).encode())


def attributes(**fields: Payload) -> SearchAttributes:
    return SearchAttributes(indexed_fields=fields)


def check(search_attributes: SearchAttributes) -> None:
    check_search_attributes(search_attributes, CUSTOM, LIMITS, namespace="shop")


def refused(search_attributes: SearchAttributes) -> str:
    with pytest.raises(InvalidArgument) as refusal:
        check(search_attributes)
    return refusal.value.message


# --- which ------------------------------------------------------------------------------------------------------------


def test_a_name_nobody_registered_is_refused() -> None:
    message = refused(attributes(Nope=value(1)))
    assert message == "Namespace shop has no mapping defined for search attribute Nope"


@pytest.mark.parametrize("name", [*SYSTEM_TYPES, "TemporalWorkerDeployment", "TemporalExternalPayloadCount"])
def test_what_the_server_knows_itself_is_not_set_by_others(name: str) -> None:
    assert refused(attributes(**{name: value("x")})) == f"{name} attribute can't be set in SearchAttributes"


def test_some_predefined_attributes_may_be_set() -> None:
    check(attributes(BatcherUser=value("me"), TemporalChangeVersion=value(["a-1"]), TemporalSchedulePaused=value(True)))


def test_no_name_is_both_system_and_predefined() -> None:
    assert not SYSTEM_TYPES.keys() & PREDEFINED_TYPES.keys()


def test_too_many_at_once_are_refused() -> None:
    custom = dict.fromkeys((f"A{i}" for i in range(101)), int(IndexedValueType.INDEXED_VALUE_TYPE_INT))
    many = SearchAttributes(indexed_fields={name: value(1) for name in custom})
    with pytest.raises(InvalidArgument, match=r"^number of search attributes 101 exceeds limit 100$"):
        check_search_attributes(many, custom, LIMITS, namespace="shop")


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("Flag", value(True)),
        ("When", value("2024-01-01T00:00:00Z")),
        ("When", value("2024-02-29T23:59:59.123456789+05:30")),
        ("Ratio", value(1.5)),
        ("Ratio", value(1)),
        ("Ratio", value(12345678901234567890)),
        ("Count", value(-(2**63))),
        ("Customer", value("Ann")),
        ("Customer", value(["Ann"])),
        ("Note", value("")),
        ("Tags", value(["a", "b"])),
        ("Tags", value([None, "a"])),
        ("Tags", value([])),
        ("Count", value([])),
        ("Count", value(None)),
        ("Count", raw(b"", b"binary/null")),
    ],
)
def test_values_of_their_type(name: str, payload: Payload) -> None:
    check(attributes(**{name: payload}))


@pytest.mark.parametrize(
    ("name", "payload", "told"),
    [
        ("Count", value("x"), "Int: x"),
        ("Count", value(1.5), "Int: 1.5"),
        ("Count", value(3.0), "Int: 3"),
        ("Count", value(True), "Int: true"),
        ("Count", value([1, "a"]), "Int: [1 a]"),
        ("Count", value([None, 1]), "Int: [<nil> 1]"),
        ("Count", value(2**63), "Int: 9223372036854775808"),
        ("Flag", value("true"), "Bool: true"),
        ("Flag", value(1), "Bool: 1"),
        ("Ratio", value("1"), "Double: 1"),
        ("Ratio", raw(b"1" + b"0" * 309), "Double: 1" + "0" * 309),
        ("Customer", value(5), "Keyword: 5"),
        ("Customer", value(["x", "y"]), "Keyword: [x y]"),
        ("Customer", value({"b": 1, "a": None}), "Keyword: map[a:<nil> b:1]"),
        ("Customer", value("nul\0"), "Keyword: nul\0"),
        ("Note", value(False), "Text: false"),
        ("Tags", value("single"), "KeywordList: single"),
        ("Tags", value(["a", 5]), "KeywordList: [a 5]"),
        ("When", value("yesterday"), "Datetime: yesterday"),
        ("When", value("2024-01-01"), "Datetime: 2024-01-01"),
        ("When", value("2024-01-01T00:00:00"), "Datetime: 2024-01-01T00:00:00"),
        ("When", value("2023-02-29T00:00:00Z"), "Datetime: 2023-02-29T00:00:00Z"),
        ("When", value("2024-01-01T00:00:00+24:00"), "Datetime: 2024-01-01T00:00:00+24:00"),
        ("When", value(5), "Datetime: 5"),
    ],
)
def test_values_of_another_type(name: str, payload: Payload, told: str) -> None:
    assert refused(attributes(**{name: payload})) == f"invalid value for search attribute {name} of type {told}"


@pytest.mark.parametrize(
    "payload",
    [
        raw(b"{nope"),
        raw(b"1e400"),
        raw(b"[" * 100_000),
        raw(b'"\\ud800"'),
        raw(b"\xff"),
        raw(b"abc", b"binary/plain"),
        raw(b'"x"', b"json/protobuf"),
        Payload(data=b'"x"'),
    ],
)
def test_what_is_not_json_is_refused_whatever_it_holds(payload: Payload) -> None:
    told = refused(attributes(Customer=payload))
    assert told.startswith("invalid value for search attribute Customer of type Keyword: value from <")


def test_one_value_that_is_too_large_is_refused() -> None:
    check(attributes(Note=value("x" * 2046)))
    assert refused(attributes(Note=value("x" * 2047))) == (
        "search attribute Note value size 2049 exceeds size limit 2048"
    )


def test_too_much_in_all_is_refused() -> None:
    custom = dict.fromkeys((f"A{i}" for i in range(30)), int(IndexedValueType.INDEXED_VALUE_TYPE_TEXT))
    many = SearchAttributes(indexed_fields={name: value("x" * 2000) for name in custom})
    with pytest.raises(InvalidArgument, match=r"^total size of search attributes \d+ exceeds size limit 40960$"):
        check_search_attributes(many, custom, LIMITS, namespace="shop")


def test_values_name_their_type_but_a_type_they_have_stays() -> None:
    labelled = value("x")
    labelled.metadata["type"] = b"Int"
    given = attributes(Tags=value(["a"]), Customer=labelled, BatcherUser=value("me"))
    typed = typed_search_attributes(given, CUSTOM).indexed_fields
    assert {name: payload.metadata["type"] for name, payload in typed.items()} == {
        "Tags": b"KeywordList",
        "Customer": b"Int",
        "BatcherUser": b"Keyword",
    }
    assert "type" not in given.indexed_fields["Tags"].metadata


def test_a_run_starts_without_what_is_taken_away() -> None:
    given = attributes(Count=value(1), Tags=value([]), Note=raw(b"", b"binary/null"))
    started = normalize_search_attributes(given, CUSTOM, LIMITS, namespace="shop")
    assert list(started.indexed_fields) == ["Count"]
    assert started.indexed_fields["Count"].metadata["type"] == b"Int"


# --- merging ----------------------------------------------------------------------------------------------------------


def test_an_upsert_sets_replaces_and_takes_away() -> None:
    present = {"a": value(1), "b": value(2), "c": value(3)}
    upserted = {"b": value(20), "c": value([]), "d": value(4), "e": raw(b"", b"binary/null")}
    assert merged_fields(present, upserted) == {"a": value(1), "b": value(20), "d": value(4)}
    assert set(present) == {"a", "b", "c"}


def test_a_json_null_is_a_value() -> None:
    assert without_removals({"a": value(None), "b": raw(b"")}) == {"a": value(None)}


# --- commands ---------------------------------------------------------------------------------------------------------


def facts(*, search_attributes: SearchAttributes | None = None, memo: Memo | None = None) -> RunFacts:
    return RunFacts(
        namespace="shop",
        workflow_type="Order",
        task_queue="orders",
        search_attribute_types=CUSTOM,
        search_attributes=search_attributes or SearchAttributes(),
        memo=memo or Memo(),
    )


def upsert(search_attributes: SearchAttributes | None) -> UpsertWorkflowSearchAttributesCommandAttributes:
    return UpsertWorkflowSearchAttributesCommandAttributes(search_attributes=search_attributes)


@pytest.mark.parametrize(
    ("search_attributes", "reason"),
    [
        (None, "SearchAttributes is not set on UpsertWorkflowSearchAttributesCommand."),
        (attributes(), "IndexedFields is not set on UpsertWorkflowSearchAttributesCommand."),
        (attributes(Nope=value(1)), "Namespace shop has no mapping defined for search attribute Nope"),
        (attributes(RunId=value("x")), "RunId attribute can't be set in SearchAttributes"),
        (attributes(Count=value("x")), "invalid value for search attribute Count of type Int: x"),
    ],
)
def test_a_wrong_upsert_fails_the_task(search_attributes: SearchAttributes | None, reason: str) -> None:
    with pytest.raises(BadCommand) as caught:
        check_upsert_search_attributes(upsert(search_attributes), facts(), LIMITS)
    assert caught.value.message == f"BadSearchAttributes: {reason}"
    assert not caught.value.terminate


def test_an_upsert_returns_what_the_run_then_has() -> None:
    run = facts(search_attributes=attributes(Count=value(1), Note=value("old")))
    after = check_upsert_search_attributes(upsert(attributes(Note=value([]), Customer=value("Ann"))), run, LIMITS)
    assert set(after.indexed_fields) == {"Count", "Customer"}
    assert after.indexed_fields["Customer"].metadata["type"] == b"Keyword"


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (2047, "search attribute Note value size 2049 exceeds size limit 2048"),
        (3_000_000, "UpsertWorkflowSearchAttributesCommandAttributes exceeds size limit."),
    ],
)
def test_too_large_an_upsert_ends_the_run(size: int, reason: str) -> None:
    with pytest.raises(BadCommand) as caught:
        check_upsert_search_attributes(upsert(attributes(Note=value("x" * size))), facts(), LIMITS)
    assert (caught.value.reason, caught.value.terminate) == (reason, True)


def test_what_the_run_has_counts_towards_the_size() -> None:
    custom = dict.fromkeys((f"A{i}" for i in range(21)), int(IndexedValueType.INDEXED_VALUE_TYPE_TEXT))
    run = facts(search_attributes=SearchAttributes(indexed_fields={f"A{i}": value("x" * 2000) for i in range(20)}))
    run.search_attribute_types = custom
    check_upsert_search_attributes(upsert(attributes(A0=value("small"))), run, LIMITS)
    with pytest.raises(BadCommand, match="total size of search attributes") as caught:
        check_upsert_search_attributes(upsert(attributes(A20=value("x" * 1000))), run, LIMITS)
    assert caught.value.terminate


def test_a_memo_change_must_change_something() -> None:
    for command, reason in (
        (
            ModifyWorkflowPropertiesCommandAttributes(),
            "UpsertedMemo is not set on ModifyWorkflowPropertiesCommand.",
        ),
        (
            ModifyWorkflowPropertiesCommandAttributes(upserted_memo=Memo()),
            "UpsertedMemo.Fields is not set on ModifyWorkflowPropertiesCommand.",
        ),
    ):
        with pytest.raises(BadCommand) as caught:
            check_modify_properties(command, facts(), LIMITS)
        assert caught.value.message == f"BadModifyWorkflowPropertiesAttributes: {reason}"


def modify(**fields: Payload) -> ModifyWorkflowPropertiesCommandAttributes:
    return ModifyWorkflowPropertiesCommandAttributes(upserted_memo=Memo(fields=fields))


def test_a_memo_change_returns_what_the_run_then_has() -> None:
    run = facts(memo=Memo(fields={"a": value(1), "b": value(2)}))
    after = check_modify_properties(modify(b=raw(b"", b"binary/null"), c=value(3)), run, LIMITS)
    assert after == Memo(fields={"a": value(1), "c": value(3)})


@pytest.mark.parametrize(
    ("present", "upserted", "reason"),
    [
        (0, 3_000_000, "ModifyWorkflowPropertiesCommandAttributes exceeds size limit."),
        (1_200_000, 1_200_000, "ModifyWorkflowPropertiesCommandAttributes. Memo exceeds size limit."),
    ],
)
def test_too_large_a_memo_ends_the_run(present: int, upserted: int, reason: str) -> None:
    run = facts(memo=Memo(fields={"a": raw(bytes(present))}))
    with pytest.raises(BadCommand) as caught:
        check_modify_properties(modify(b=raw(bytes(upserted))), run, LIMITS)
    assert (caught.value.reason, caught.value.terminate) == (reason, True)
